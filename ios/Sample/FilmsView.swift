import SwiftUI

/// A list of films; tap one that you have seen, and the list moves.
struct FilmsView: View {
    @State private var films = Films()
    @State private var screen = Films.Screen()
    @SceneStorage("history") private var saved: Data?

    var body: some View {
        List {
            Section(screen.headline) {
                ForEach(screen.films) { film in
                    Button(film.title) {
                        Task { saved = await films.take(film) ?? saved }
                    }
                }
            }
        }
        .task { await films.run(saved: saved) { screen = $0 } }
    }
}
