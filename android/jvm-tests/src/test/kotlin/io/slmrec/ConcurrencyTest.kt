package io.slmrec

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

class ConcurrencyTest {
    @Test
    fun `16 coroutines with 1000 calls each get what serial calls get`() = recommending { recommender ->
        val serial = (0 until 1000).map { recommender.recommend(history(it), 5).items }
        coroutineScope {
            val workers = List(16) { worker ->
                async(Dispatchers.Default) {
                    // Each in an order of its own.
                    for (i in 0 until 1000) {
                        val n = (i * 7 + worker * 61) % 1000
                        assertEquals(serial[n], recommender.recommend(history(n), 5).items)
                    }
                    1000
                }
            }
            assertEquals(16_000, workers.awaitAll().sum())
        }
    }
}
