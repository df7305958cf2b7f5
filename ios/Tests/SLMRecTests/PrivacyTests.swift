import Foundation
import XCTest

final class PrivacyTests: XCTestCase {
    /// Apple reads it when an app is handed in; a mistake in it is told then.
    func testTheManifestSaysThatNothingIsCollected() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/SLMRec/PrivacyInfo.xcprivacy")
        let list = try PropertyListSerialization.propertyList(
            from: Data(contentsOf: path), format: nil)
        let manifest = try XCTUnwrap(list as? [String: Any])
        XCTAssertEqual(manifest["NSPrivacyTracking"] as? Bool, false)
        for key in ["NSPrivacyTrackingDomains", "NSPrivacyCollectedDataTypes"] {
            XCTAssertEqual((manifest[key] as? [Any])?.count, 0, key)
        }
        let types = try XCTUnwrap(manifest["NSPrivacyAccessedAPITypes"] as? [[String: Any]])
        XCTAssertEqual(
            types.map { $0["NSPrivacyAccessedAPIType"] as? String },
            ["NSPrivacyAccessedAPICategoryFileTimestamp"])
        XCTAssertEqual(types.map { $0["NSPrivacyAccessedAPITypeReasons"] as? [String] }, [["C617.1"]])
    }
}
