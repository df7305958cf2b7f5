package io.slmrec

import java.io.File
import java.nio.file.Path
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

class HistoryStateTest {
    private fun ids(found: Recommendations) = found.items.map { it.id }

    @Test
    fun `a state answers like the whole history`() = recommending { recommender ->
        recommender.historyState(listOf("item-1", "nowhere")).use { state ->
            assertEquals(listOf("nowhere"), state.unknownItems)
            assertTrue(state.append("item-8"))
            assertFalse(state.append("other"))
            assertEquals(2, state.usedItems())
            assertEquals(
                ids(recommender.recommend(listOf("item-1", "item-8"), 3)),
                ids(state.recommend(3)),
            )
        }
    }

    @Test
    fun `a flow follows what is appended`() = recommending { recommender ->
        recommender.historyState().use { state ->
            val lists = Channel<Recommendations>(Channel.UNLIMITED)
            runBlocking {
                val listener = launch(Dispatchers.Default) {
                    state.recommendations(k = 3).collect { lists.send(it) }
                }
                val taken = mutableListOf<String>()
                for (id in listOf("item-1", "item-8", "item-3")) {
                    assertTrue(state.append(id))
                    taken += id
                    // Lists that are out of date may be left out; the last one comes.
                    var list = lists.receive()
                    while (list.usedItems < taken.size) {
                        list = lists.receive()
                    }
                    assertEquals(ids(recommender.recommend(taken, 3)), ids(list))
                }
                listener.cancel()
            }
        }
    }

    @Test
    fun `a state outlives its process`(@TempDir folder: Path) = recommending { recommender ->
        val written = File(folder.toFile(), "state")
        val other = ProcessBuilder(
            File(System.getProperty("java.home"), "bin/java").path,
            "-cp", System.getProperty("java.class.path"),
            "-Djna.library.path=" + System.getProperty("jna.library.path"),
            "-Dslmrec.bundle=$bundle",
            "-Dslmrec.onnxruntime=" + options.onnxRuntime,
            "io.slmrec.DyingProcess",
            written.path,
        ).inheritIO().start()
        assertTrue(other.waitFor(2, TimeUnit.MINUTES))
        assertEquals(137, other.exitValue())
        recommender.restoreHistoryState(written.readBytes()).use { state ->
            assertEquals(2, state.usedItems())
            assertEquals(ids(recommender.recommend(listOf("item-1", "item-8"), 4)), ids(state.recommend(4)))
            assertArrayEquals(written.readBytes(), state.toBytes())
        }
    }
}

/** Writes its state and is gone, without a chance to close anything. */
internal object DyingProcess {
    @JvmStatic
    fun main(arguments: Array<String>) = runBlocking {
        val state = Recommender.open(bundle, options).historyState(listOf("item-1"))
        state.append("item-8")
        state.recommend(3)
        File(arguments[0]).writeBytes(state.toBytes())
        Runtime.getRuntime().halt(137)
    }
}
