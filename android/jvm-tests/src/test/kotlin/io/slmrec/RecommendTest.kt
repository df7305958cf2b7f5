package io.slmrec

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

class RecommendTest {
    private val history = listOf("item-1", "nowhere", "item-8", "item-3")

    @Test
    fun `a history gives items with titles`() = recommending { recommender ->
        val found = recommender.recommend(history, k = 5)
        assertEquals(listOf(1, 2, 3, 4, 5), found.items.map { it.rank })
        assertEquals(listOf("nowhere"), found.unknownItems)
        assertEquals(3, found.usedItems)
        assertEquals(0, found.shortfall)
        assertTrue(found.items.all { it.title!!.startsWith("The item in row") })
        assertTrue(found.items.none { it.id in history })
        assertTrue(found.items.zipWithNext().all { (a, b) -> a.score >= b.score })
    }

    @Test
    fun `filters block, allow and bring seen items back`() = recommending { recommender ->
        val first = recommender.recommend(history, 1).items.single().id
        val blocked = recommender.recommend(history, 29, Filter(block = listOf(first)))
        assertTrue(blocked.items.none { it.id == first })
        assertEquals(29 - 26, blocked.shortfall)
        val allowed = Filter(allow = listOf("item-9", "item-10", "other"))
        val found = recommender.recommend(history, 2, allowed)
        assertEquals(setOf("item-9", "item-10"), found.items.map { it.id }.toSet())
        assertEquals(listOf("other"), found.unknownFilterItems)
        val seen = recommender.recommend(history, 30, Filter(includeSeen = true))
        assertTrue(seen.items.map { it.id }.containsAll(listOf("item-1", "item-8")))
    }

    @Test
    fun `categories filter, and unknown ones are named`() = recommending { recommender ->
        // Rows that two divide are even, those that three divides third.
        fun rows(found: Recommendations) =
            found.items.map { it.id.removePrefix("item-").toInt() }.toSet()
        val seen = Filter(includeSeen = true, categories = listOf("third"))
        assertEquals((3..30 step 3).toSet(), rows(recommender.recommend(history, 30, seen)))
        val odd = Filter(includeSeen = true, blockCategories = listOf("even"))
        val found = recommender.recommend(history, 30, odd)
        assertEquals((1..30 step 2).toSet(), rows(found))
        assertEquals(15, found.shortfall)
        val unknown = recommender.recommend(history, 5, Filter(categories = listOf("Third")))
        assertEquals(listOf("Third"), unknown.unknownCategories)
        assertEquals(5, unknown.shortfall)
        assertTrue(recommender.popular(30, seen).all { it.id.removePrefix("item-").toInt() % 3 == 0 })
    }

    @Test
    fun `candidates have the scores of the list`() = recommending { recommender ->
        val list = recommender.recommend(history, 4).items
        val ranked = recommender.score(history, list.map { it.id }.reversed() + "other")
        assertEquals(list, ranked.items)
        assertEquals(listOf("other"), ranked.unknownCandidates)
    }

    @Test
    fun `reasons are items of the history`() = recommending { recommender ->
        val items = recommender.recommend(history, 4).items.map { it.id }
        val explained = recommender.explain(history, items + "other", maxReasons = 2)
        assertEquals(items + "other", explained.map { it.id })
        assertTrue(explained.last().reasons.isEmpty())
        assertTrue(explained.any { it.reasons.isNotEmpty() })
        for (reason in explained.flatMap { it.reasons }) {
            assertTrue(reason.id in history && reason.drop > 0f, reason.toString())
        }
    }

    @Test
    fun `the bundle says what it is and checks itself`() = recommending { recommender ->
        val info = recommender.info()
        assertEquals(30, info.items)
        assertEquals(6, info.maxHistory)
        assertEquals("int8", info.precision)
        assertEquals("onnxruntime", info.engine.name)
        assertEquals(0.125, info.metrics["ndcg@10"])
        val test = recommender.selfTest()
        assertTrue(test.passed && test.samples > 0, test.toString())
        assertEquals(3, recommender.popular(3).size)
        assertFalse(info.prior)
    }
}
