package io.slmrec

import java.io.File
import java.nio.file.Path
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

class FailuresTest {
    private inline fun <reified E : SlmrecException> fails(crossinline question: suspend () -> Any?): E =
        assertThrows(E::class.java) { runBlocking { question() } }

    @Test
    fun `histories and arguments`() = recommending { recommender ->
        fails<SlmrecException.NoUsableHistory> { recommender.recommend(emptyList()) }
        val unknown = fails<SlmrecException.NoUsableHistory> { recommender.recommend(listOf("nowhere")) }
        assertTrue("nowhere" in unknown.message!!, unknown.message)
        fails<SlmrecException.InvalidArgument> { recommender.recommend(listOf("item-1"), k = -1) }
        fails<SlmrecException.InvalidArgument> { recommender.recommend(listOf("x".repeat(5000))) }
        fails<SlmrecException.InvalidArgument> {
            recommender.explain(listOf("item-1"), listOf("item-2"), maxItems = 0)
        }
        fails<SlmrecException.HistoryState> { recommender.restoreHistoryState(byteArrayOf(1, 2)) }
        assertEquals(0, recommender.recommend(listOf("item-1"), k = 0).items.size)
    }

    @Test
    fun `files`(@TempDir folder: Path) = recommending { recommender ->
        val missing = File(folder.toFile(), "missing.slmrec")
        val error = fails<SlmrecException.File> { Recommender.open(missing, options) }
        assertTrue("missing.slmrec" in error.message!! && "hint" !in error.message!!, error.message)
        fails<SlmrecException.DamagedBundle> { recommender.applyPack(bundle) }
        val text = File(folder.toFile(), "text.slmrec").apply { writeText("no bundle") }
        fails<SlmrecException.DamagedBundle> { Recommender.open(text, options) }
        Unit
    }

    @Test
    fun `a damaged bundle is refused wherever the damage is`(@TempDir folder: Path) {
        val whole = bundle.readBytes()
        for (part in 1..7) {
            val bytes = whole.copyOf()
            val at = bytes.size / 8 * part
            bytes[at] = (bytes[at].toInt() xor 0x10).toByte()
            val damaged = File(folder.toFile(), "damaged-$part.slmrec").apply { writeBytes(bytes) }
            fails<SlmrecException.DamagedBundle> {
                // Members are read when they are needed, so all of them are asked for.
                Recommender.open(damaged, options).use { it.selfTest(); it.popular(1) }
            }
        }
        val cut = File(folder.toFile(), "cut.slmrec").apply { writeBytes(whole.copyOf(whole.size / 2)) }
        fails<SlmrecException.DamagedBundle> { Recommender.open(cut, options) }
    }

    @Test
    fun `use after close`() = runBlocking {
        val recommender = Recommender.open(bundle, options)
        val state = recommender.historyState(listOf("item-1"))
        recommender.close()
        recommender.close()
        fails<SlmrecException.Closed> { recommender.recommend(listOf("item-1")) }
        fails<SlmrecException.Closed> { recommender.info() }
        assertEquals(3, state.recommend(3).items.size)
        state.close()
        fails<SlmrecException.Closed> { state.append("item-2") }
        fails<SlmrecException.Closed> { state.recommend() }
        Unit
    }

    @Test
    fun `closing while questions wait answers or refuses each`() = runBlocking {
        repeat(20) {
            val recommender = Recommender.open(bundle, options)
            val asked = List(8) { n ->
                async(kotlinx.coroutines.Dispatchers.Default) {
                    runCatching { recommender.recommend(history(n), 3) }
                }
            }
            recommender.close()
            for (answer in asked.awaitAll()) {
                val error = answer.exceptionOrNull()
                assertTrue(error == null || error is SlmrecException.Closed, error.toString())
            }
        }
    }

    @Test
    fun `another ONNX Runtime than the loaded one`() = recommending {
        val other = OpenOptions(onnxRuntime = "/no/such/libonnxruntime.so")
        fails<SlmrecException.OnnxRuntime> { Recommender.open(bundle, other) }
        Unit
    }
}
