import SLMRec
import XCTest

final class RecommendTests: XCTestCase {
    private let history = ["item-1", "nowhere", "item-8", "item-3"]

    func testAHistoryGivesItemsWithTitles() async throws {
        let found = try await opened().recommend(history, k: 5)
        XCTAssertEqual(found.items.map(\.rank), [1, 2, 3, 4, 5])
        XCTAssertEqual(found.unknownItems, ["nowhere"])
        XCTAssertEqual(found.usedItems, 3)
        XCTAssertEqual(found.shortfall, 0)
        XCTAssertTrue(found.items.allSatisfy { $0.title?.hasPrefix("The item in row") == true })
        XCTAssertTrue(found.items.allSatisfy { !history.contains($0.id) })
        XCTAssertTrue(zip(found.items, found.items.dropFirst()).allSatisfy { $0.score >= $1.score })
    }

    func testFiltersBlockAllowAndBringSeenItemsBack() async throws {
        let recommender = try await opened()
        let first = try await recommender.recommend(history, k: 1).items[0].id
        let blocked = try await recommender.recommend(
            history, k: 29, filter: Filter(block: [first]))
        XCTAssertFalse(ids(blocked).contains(first))
        XCTAssertEqual(blocked.shortfall, 29 - 26)
        let allowed = Filter(allow: ["item-9", "item-10", "other"])
        let found = try await recommender.recommend(history, k: 2, filter: allowed)
        XCTAssertEqual(Set(ids(found)), ["item-9", "item-10"])
        XCTAssertEqual(found.unknownFilterItems, ["other"])
        let seen = try await recommender.recommend(
            history, k: 30, filter: Filter(includeSeen: true))
        XCTAssertTrue(Set(ids(seen)).isSuperset(of: ["item-1", "item-8"]))
    }

    func testCategoriesFilterAndUnknownOnesAreNamed() async throws {
        // Rows that two divide are even, those that three divides third.
        func rows(_ ids: [String]) -> [Int] {
            ids.compactMap { Int($0.dropFirst("item-".count)) }.sorted()
        }
        let recommender = try await opened()
        let third = Filter(includeSeen: true, categories: ["third"])
        let thirds = try await recommender.recommend(history, k: 30, filter: third)
        XCTAssertEqual(rows(ids(thirds)), Array(stride(from: 3, through: 30, by: 3)))
        let odd = Filter(includeSeen: true, blockCategories: ["even"])
        let found = try await recommender.recommend(history, k: 30, filter: odd)
        XCTAssertEqual(rows(ids(found)), Array(stride(from: 1, through: 29, by: 2)))
        XCTAssertEqual(found.shortfall, 15)
        let unknown = try await recommender.recommend(
            history, k: 5, filter: Filter(categories: ["Third"]))
        XCTAssertEqual(unknown.unknownCategories, ["Third"])
        XCTAssertEqual(unknown.shortfall, 5)
        let popular = try await recommender.popular(30, filter: third)
        XCTAssertEqual(rows(popular.map(\.id)), Array(stride(from: 3, through: 30, by: 3)))
    }

    func testCandidatesHaveTheScoresOfTheList() async throws {
        let recommender = try await opened()
        let list = try await recommender.recommend(history, k: 4).items
        let ranked = try await recommender.score(
            history, candidates: list.map(\.id).reversed() + ["other"])
        XCTAssertEqual(ranked.items, list)
        XCTAssertEqual(ranked.unknownCandidates, ["other"])
    }

    func testReasonsAreItemsOfTheHistory() async throws {
        let recommender = try await opened()
        let items = try await ids(recommender.recommend(history, k: 4)) + ["other"]
        let explained = try await recommender.explain(history, items: items, maxReasons: 2)
        XCTAssertEqual(explained.map(\.id), items)
        XCTAssertEqual(explained.last?.reasons, [])
        let reasons = explained.flatMap(\.reasons)
        XCTAssertFalse(reasons.isEmpty)
        XCTAssertTrue(reasons.allSatisfy { history.contains($0.id) && $0.drop > 0 }, "\(reasons)")
        XCTAssertTrue(explained.allSatisfy { $0.reasons.count <= 2 })
    }

    func testAPersonWithoutAHistoryGetsPopularItems() async throws {
        let recommender = try await opened()
        let all = try await recommender.popular(30)
        XCTAssertEqual(all.map(\.rank), Array(1...30))
        XCTAssertEqual(Set(all.map(\.id)).count, 30)
        let rest = try await recommender.popular(3, filter: Filter(block: [all[0].id]))
        XCTAssertEqual(rest.map(\.id), all[1...3].map(\.id))
    }

    func testTheBundleSaysWhatItIsAndChecksItself() async throws {
        let recommender = try await opened()
        let info = try await recommender.info()
        XCTAssertEqual(info.items, 30)
        XCTAssertEqual(info.maxHistory, 6)
        XCTAssertEqual(info.precision, "int8")
        XCTAssertEqual(info.engine.name, "onnxruntime")
        XCTAssertEqual(info.metrics["ndcg@10"], 0.125)
        XCTAssertFalse(info.prior)
        let test = try await recommender.selfTest()
        XCTAssertTrue(test.passed && test.samples > 0, "\(test)")
    }

    func testTelemetryIsOff() async throws {
        _ = try await opened()
        XCTAssertEqual(getenv("ORT_DISABLE_TELEMETRY").map { String(cString: $0) }, "1")
    }
}
