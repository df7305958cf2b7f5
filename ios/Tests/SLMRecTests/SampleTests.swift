#if os(Linux)
    import SLMRec
    import XCTest

    @testable import SampleFilms

    /// The part of the sample app that knows no SwiftUI.
    final class SampleTests: XCTestCase {
        func testTheListMovesWithEveryFilm() async throws {
            try await tapFilms()
        }
    }

    @MainActor
    private func tapFilms() async throws {
        let films = Films()
        let (screens, running) = follow(films, saved: nil)
        var shown = screens.makeAsyncIterator()
        let first = await shown.next()
        XCTAssertEqual(first?.headline, "Tap a film that you have seen")
        XCTAssertEqual(first?.films.count, 30)
        let film = try XCTUnwrap(first?.films.first)
        let written = await films.take(film)
        let second = await shown.next()
        XCTAssertTrue(second?.headline.hasPrefix("After 1 films, in ") == true, "\(second as Any)")
        XCTAssertEqual(second?.films.count, 29)
        XCTAssertFalse(second?.films.contains(film) == true)
        running.cancel()
        await running.value

        // The next start of the app, and one after an update of the bundle.
        for (saved, start) in [(written, "After 1 "), (Data([1]), "Tap a film")] {
            let (screens, running) = follow(Films(), saved: saved)
            var shown = screens.makeAsyncIterator()
            let screen = await shown.next()
            XCTAssertTrue(screen?.headline.hasPrefix(start) == true, "\(screen as Any)")
            running.cancel()
            await running.value
        }
    }

    @MainActor
    private func follow(
        _ films: Films, saved: Data?
    ) -> (AsyncStream<Films.Screen>, Task<Void, Never>) {
        let (screens, sink) = AsyncStream.makeStream(of: Films.Screen.self)
        let running = Task {
            await films.run(saved: saved, open: opened) { sink.yield($0) }
            sink.finish()
        }
        return (screens, running)
    }
#endif
