package io.slmrec

import java.io.File
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test

/**
 * What facade and JNA add to a call: its time here less what the native side says that it took.
 * Run by `cargo xtask bench ffi`, which names the file for the rows.
 */
class OverheadBench {
    private val rows = mutableListOf<String>()

    @Test
    fun overhead() = recommending { recommender ->
        val output = System.getProperty("slmrec.bench").orEmpty()
        assumeTrue(output.isNotEmpty(), "run `cargo xtask bench ffi`")
        val longest = recommender.info().maxHistory
        val history = List(longest) { "item-${1 + it % 30}" }
        measure("recommend, history of $longest items") { recommender.recommend(history, 10) }
        recommender.historyState(history).use { state ->
            var n = 0
            measure("state: append and recommend", calls = 2) {
                state.append("item-${1 + n++ % 30}")
                state.recommend(10)
            }
        }
        cancelled(recommender, history)
        File(output).writeText(rows.joinToString(",\n", "[\n", "\n]\n"))
    }

    /** `question` makes as many `calls` across the border. */
    private suspend fun measure(case: String, calls: Int = 1, question: suspend () -> Recommendations) {
        repeat(2000) { question() }
        val inside = DoubleArray(4000)
        val added = DoubleArray(inside.size)
        for (i in inside.indices) {
            val start = System.nanoTime()
            val found = question()
            val whole = (System.nanoTime() - start) / 1e6
            inside[i] = found.milliseconds
            added[i] = (whole - found.milliseconds) / calls
        }
        row("$case: Rust alone", inside, null)
        row("$case: added to each call by facade and JNA", added, 0.2)
    }

    /** From the cancellation to the caller's going on, while the native side works. */
    private fun cancelled(recommender: Recommender, history: List<String>) {
        val items = List(10) { "item-${1 + it}" }
        val times = DoubleArray(300)
        runBlocking {
            for (i in times.indices) {
                val asked = launch(Dispatchers.Default) { recommender.explain(history, items) }
                // Some of the way into it.
                Thread.sleep(0, 200_000)
                val start = System.nanoTime()
                asked.cancelAndJoin()
                times[i] = (System.nanoTime() - start) / 1e6
            }
        }
        row("cancel explain", times, 20.0)
    }

    private fun row(case: String, times: DoubleArray, goal: Double?) {
        times.sort()
        fun quantile(q: Double) = times[((times.size - 1) * q).toInt()]
        val peer = if (goal == null) "null" else "\"goal\""
        val ratio = if (goal == null) "null" else "${quantile(0.5) / goal}"
        rows += """{"case": "$case", "metric": "ms, median", "ours": ${quantile(0.5)},
            "spread": [${quantile(0.1)}, ${quantile(0.9)}], "peer": $peer, "theirs": $goal,
            "ratio": $ratio, "goal": ${if (goal == null) "null" else "1.0"}}"""
    }
}
