package io.slmrec

import io.slmrec.ffi.CancelToken
import io.slmrec.ffi.Filter as NativeFilter
import io.slmrec.ffi.OpenOptions as NativeOptions
import io.slmrec.ffi.Provider as NativeProvider
import io.slmrec.ffi.Recommender as NativeRecommender
import io.slmrec.ffi.SlmrecException as NativeException
import io.slmrec.internal.Calls
import java.util.concurrent.CountDownLatch
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class CancellationTest {
    @Test
    fun `a cancelled caller does not wait for the call`() = runBlocking {
        val calls = Calls()
        val running = CompletableDeferred<CancelToken>()
        val mayEnd = CountDownLatch(1)
        val ended = CompletableDeferred<Boolean>()
        val caller = launch(Dispatchers.Default) {
            calls.call { cancel ->
                running.complete(cancel)
                mayEnd.await()
                ended.complete(true)
            }
        }
        running.await()
        // Returns although the call cannot end before the next line.
        caller.cancelAndJoin()
        mayEnd.countDown()
        assertTrue(ended.await())
        // And the next call gets its turn.
        assertEquals(7, calls.call { 7 })
    }

    @Test
    fun `the token is cancelled with the caller`() = runBlocking {
        val calls = Calls()
        val running = CompletableDeferred<Unit>()
        val seen = CompletableDeferred<Boolean>()
        val caller = launch(Dispatchers.Default) {
            calls.call { cancel ->
                running.complete(Unit)
                // The test ends only if the token is cancelled or destroyed.
                val cancelled = runCatching {
                    while (!cancel.isCancelled()) {
                        Thread.onSpinWait()
                    }
                }
                seen.complete(cancelled.isSuccess || cancelled.exceptionOrNull() is IllegalStateException)
            }
        }
        running.await()
        caller.cancelAndJoin()
        assertTrue(seen.await())
    }

    @Test
    fun `a cancelled question leaves the recommender usable`() = recommending { recommender ->
        val expected = recommender.recommend(history(1), 5).items
        for (n in 0 until 200) {
            runBlocking {
                val asked = launch(Dispatchers.Default) {
                    recommender.explain(history(n), listOf("item-5", "item-6"))
                }
                asked.cancelAndJoin()
            }
        }
        assertEquals(expected, recommender.recommend(history(1), 5).items)
    }

    @Test
    fun `the native side ends a question whose token is cancelled`() {
        val native = NativeOptions(options.onnxRuntime, NativeProvider.AUTO, 1u, true)
        val filter = NativeFilter(false, emptyList(), null, null, emptyList())
        NativeRecommender.open(bundle.path, native).use { recommender ->
            CancelToken().use { token ->
                token.cancel()
                assertThrows(NativeException.Cancelled::class.java) {
                    recommender.recommend(history(1), 3u, filter, token)
                }
            }
        }
    }
}
