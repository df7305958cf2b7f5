import Foundation
import SLMRec
import XCTest

/// The bundle that the task has made: items `item-1` to `item-30`, histories of up to 6 items.
let bundle = URL(fileURLWithPath: setting("SLMREC_TEST_BUNDLE"))

let options = OpenOptions(onnxRuntime: setting("SLMREC_TEST_ONNXRUNTIME"))

private func setting(_ name: String) -> String {
    guard let value = ProcessInfo.processInfo.environment[name], !value.isEmpty else {
        fatalError("\(name) is not set; run `cargo xtask test-ios`")
    }
    return value
}

/// A recommender for one test.
func opened() async throws -> Recommender {
    try await Recommender.open(bundle, options: options)
}

/// Different histories, some with an item that the catalog does not have.
func history(_ n: Int) -> [String] {
    ["item-\(1 + n % 30)", "nowhere-\(n)", "item-\(1 + n * 7 % 30)", "item-\(1 + n / 30 % 30)"]
}

func ids(_ found: Recommendations) -> [String] { found.items.map(\.id) }

/// A folder that goes with the test.
func temporaryFolder(for test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try FileManager.default.removeItem(at: folder) }
    return folder
}

/// The error of a question that must fail.
func failure<Answer>(
    _ question: () async throws -> Answer, file: StaticString = #filePath, line: UInt = #line
) async -> SLMRecError? {
    do {
        XCTFail("no error, but \(try await question())", file: file, line: line)
        return nil
    } catch {
        XCTAssertTrue(error is SLMRecError, "\(error)", file: file, line: line)
        return error as? SLMRecError
    }
}

/// The question must fail with the case of `expected`.
func expectFailure<Answer>(
    _ expected: SLMRecError, file: StaticString = #filePath, line: UInt = #line,
    _ question: () async throws -> Answer
) async {
    let error = await failure(question, file: file, line: line)
    XCTAssertEqual(
        error?.name, expected.name, "\(String(describing: error))", file: file, line: line)
}

extension SLMRecError {
    /// Its case without what it says.
    var name: String { String("\(self)".prefix { $0 != "(" }) }
}
