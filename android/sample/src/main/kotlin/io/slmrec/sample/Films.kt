package io.slmrec.sample

import android.content.Context
import io.slmrec.HistoryState
import io.slmrec.Recommender
import io.slmrec.SlmrecException
import io.slmrec.open
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.launch

/** What the screen shows, from `assets/student.slmrec` and the films that were tapped. */
class Films(context: Context, saved: ByteArray?) : AutoCloseable {
    data class Film(val id: String, val title: String)

    data class Screen(val headline: String, val films: List<Film>)

    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Main.immediate)
    private val shown = MutableStateFlow(Screen("Opening ..", emptyList()))
    private var recommender: Recommender? = null
    private var history: HistoryState? = null

    val screen: StateFlow<Screen> = shown

    /** The history as bytes, as of the last film. */
    var written: ByteArray? = saved
        private set

    init {
        scope.launch {
            try {
                start(context, saved)
            } catch (error: SlmrecException) {
                shown.value = Screen("${error.javaClass.simpleName}: ${error.message}", emptyList())
            }
        }
    }

    private suspend fun start(context: Context, saved: ByteArray?) {
        val recommender = Recommender.open(context, "student.slmrec").also { recommender = it }
        val history = restored(recommender, saved).also { history = it }
        if (history.usedItems() == 0) {
            val popular = recommender.popular(30).map { Film(it.id, it.title ?: it.id) }
            shown.value = Screen("Tap a film that you have seen", popular)
        }
        history.recommendations(k = 30).collect { found ->
            val films = found.items.map { Film(it.id, it.title ?: it.id) }
            val time = "%.1f ms".format(found.milliseconds)
            shown.value = Screen("After ${found.usedItems} films, in $time", films)
        }
    }

    /** Bytes of another bundle, after an update of the app, are no history. */
    private suspend fun restored(recommender: Recommender, saved: ByteArray?): HistoryState = try {
        saved?.let { recommender.restoreHistoryState(it) } ?: recommender.historyState()
    } catch (_: SlmrecException.HistoryState) {
        recommender.historyState()
    }

    fun take(id: String) {
        val history = history ?: return
        scope.launch {
            history.append(id)
            written = history.toBytes()
        }
    }

    override fun close() {
        scope.cancel()
        history?.close()
        recommender?.close()
    }
}
