import Foundation
import SLMRec

/// What the screen shows, from the resource `student.slmrec`.
@MainActor
final class Films {
    struct Film: Hashable, Identifiable {
        let id: String
        let title: String
    }

    struct Screen: Equatable {
        var headline = "Opening .."
        var films: [Film] = []
    }

    private var history: HistoryState?

    /// Opens the bundle and shows what there is to see until the task is cancelled.
    func run(
        saved: Data?,
        open: () async throws -> Recommender = { try await Recommender.open(resource: "student") },
        show: (Screen) -> Void
    ) async {
        do {
            let recommender = try await open()
            let history = try await restored(saved, by: recommender)
            self.history = history
            if try await history.usedItems() == 0 {
                let popular = try await recommender.popular(30).map { film($0.id, $0.title) }
                show(Screen(headline: "Tap a film that you have seen", films: popular))
            }
            for try await found in history.recommendations(k: 30) {
                let films = found.items.map { film($0.id, $0.title) }
                let time = String(format: "%.1f ms", found.milliseconds)
                show(Screen(headline: "After \(found.usedItems) films, in \(time)", films: films))
            }
        } catch {
            show(Screen(headline: "\(error)"))
        }
    }

    /// The person has seen it; the history as bytes, for the next start of the app.
    func take(_ film: Film) async -> Data? {
        do {
            try await history?.append(film.id)
            return try await history?.data()
        } catch {
            // The sequence above tells the person.
            return nil
        }
    }

    /// Bytes of another bundle, after an update of the app, are no history.
    private func restored(_ saved: Data?, by recommender: Recommender) async throws -> HistoryState
    {
        do {
            if let saved { return try await recommender.restoreHistoryState(saved) }
        } catch SLMRecError.historyState {}
        return try await recommender.historyState()
    }

    private func film(_ id: String, _ title: String?) -> Film { Film(id: id, title: title ?? id) }
}
