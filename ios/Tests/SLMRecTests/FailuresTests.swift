import Foundation
import SLMRec
import XCTest

final class FailuresTests: XCTestCase {
    func testHistoriesAndArguments() async throws {
        let recommender = try await opened()
        await expectFailure(.noUsableHistory("")) {
            try await recommender.recommend([])
        }
        let unknown = await failure {
            try await recommender.recommend(["nowhere"])
        }
        XCTAssertEqual(unknown?.name, "noUsableHistory")
        XCTAssertTrue(
            unknown?.message.contains("nowhere") == true, "\(String(describing: unknown))")
        await expectFailure(.invalidArgument("")) {
            try await recommender.recommend(["item-1"], k: -1)
        }
        await expectFailure(.invalidArgument("")) {
            try await recommender.recommend([String(repeating: "x", count: 5000)])
        }
        await expectFailure(.invalidArgument("")) {
            try await recommender.explain(["item-1"], items: ["item-2"], maxItems: 0)
        }
        await expectFailure(.historyState("")) {
            try await recommender.restoreHistoryState(Data([1, 2]))
        }
        let none = try await recommender.recommend(["item-1"], k: 0)
        XCTAssertEqual(none.items, [])
    }

    /// As an app catches them.
    func testCasesAreCaughtByName() async throws {
        let recommender = try await opened()
        do {
            _ = try await recommender.recommend(["nowhere"])
            XCTFail("no error")
        } catch SLMRecError.noUsableHistory(let message) {
            XCTAssertTrue(message.contains("nowhere"), message)
        }
    }

    func testFiles() async throws {
        let folder = try temporaryFolder(for: self)
        let missing = folder.appendingPathComponent("missing.slmrec")
        let error = await failure {
            try await Recommender.open(missing, options: options)
        }
        XCTAssertEqual(error?.name, "file")
        let message = error?.localizedDescription ?? ""
        XCTAssertTrue(message.contains("missing.slmrec") && !message.contains("hint"), message)
        let recommender = try await opened()
        await expectFailure(.damagedBundle("")) {
            try await recommender.applyPack(bundle)
        }
        let text = folder.appendingPathComponent("text.slmrec")
        try Data("no bundle".utf8).write(to: text)
        await expectFailure(.damagedBundle("")) {
            try await Recommender.open(text, options: options)
        }
        let remote = try XCTUnwrap(URL(string: "https://example.org/student.slmrec"))
        await expectFailure(.invalidArgument("")) {
            try await Recommender.open(remote, options: options)
        }
    }

    func testADamagedBundleIsRefusedWhereverTheDamageIs() async throws {
        let folder = try temporaryFolder(for: self)
        let whole = try Data(contentsOf: bundle)
        for part in 1...7 {
            var bytes = whole
            bytes[bytes.count / 8 * part] ^= 0x10
            let damaged = folder.appendingPathComponent("damaged-\(part).slmrec")
            try bytes.write(to: damaged)
            await expectFailure(.damagedBundle("")) {
                // Members are read when they are needed, so all of them are asked for.
                let recommender = try await Recommender.open(damaged, options: options)
                _ = try await recommender.selfTest()
                return try await recommender.popular(1)
            }
        }
        let cut = folder.appendingPathComponent("cut.slmrec")
        try whole.prefix(whole.count / 2).write(to: cut)
        await expectFailure(.damagedBundle("")) {
            try await Recommender.open(cut, options: options)
        }
    }

    func testUseAfterClose() async throws {
        let recommender = try await opened()
        let state = try await recommender.historyState(["item-1"])
        await recommender.close()
        await recommender.close()
        await expectFailure(.closed) {
            try await recommender.recommend(["item-1"])
        }
        await expectFailure(.closed) { try await recommender.info() }
        let found = try await state.recommend(k: 3)
        XCTAssertEqual(found.items.count, 3)
        await state.close()
        await expectFailure(.closed) { try await state.append("item-2") }
        await expectFailure(.closed) { try await state.recommend() }
    }

    func testClosingWhileQuestionsWaitAnswersOrRefusesEach() async throws {
        for _ in 0..<20 {
            let recommender = try await opened()
            await withTaskGroup(of: Result<Int, any Error>.self) { group in
                for n in 0..<8 {
                    group.addTask {
                        do {
                            return .success(
                                try await recommender.recommend(history(n), k: 3).items.count)
                        } catch {
                            return .failure(error)
                        }
                    }
                }
                await recommender.close()
                for await answer in group {
                    switch answer {
                    case .success(let count): XCTAssertEqual(count, 3)
                    case .failure(let error): XCTAssertEqual(error as? SLMRecError, .closed)
                    }
                }
            }
        }
    }

    func testAnotherONNXRuntimeThanTheLoadedOne() async throws {
        _ = try await opened()
        let other = OpenOptions(onnxRuntime: "/no/such/libonnxruntime.so")
        await expectFailure(.onnxRuntime("")) {
            try await Recommender.open(bundle, options: other)
        }
    }

    func testAProviderThatIsNotThereIsNoSilentFallback() async throws {
        var other = options
        other.provider = .coreML
        let asked = other
        await expectFailure(.unavailableProvider("")) {
            try await Recommender.open(bundle, options: asked)
        }
    }

    func testResources() async throws {
        let folder = try temporaryFolder(for: self)
        try FileManager.default.copyItem(
            at: bundle, to: folder.appendingPathComponent("student.slmrec"))
        let resources = try XCTUnwrap(Foundation.Bundle(path: folder.path))
        let recommender = try await Recommender.open(
            resource: "student", in: resources, options: options)
        let items = try await recommender.info().items
        XCTAssertEqual(items, 30)
        let error = await failure {
            try await Recommender.open(resource: "other", in: resources, options: options)
        }
        XCTAssertEqual(error?.name, "file")
        XCTAssertTrue(error?.message.hasPrefix("other.slmrec: ") == true)
    }
}
