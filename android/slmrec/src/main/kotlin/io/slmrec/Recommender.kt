package io.slmrec

import io.slmrec.ffi.Recommender as NativeRecommender
import io.slmrec.internal.Calls
import io.slmrec.internal.toAnswer
import io.slmrec.internal.toNative
import io.slmrec.internal.toUnsigned
import io.slmrec.internal.translated
import java.io.File

/**
 * An opened bundle: histories in, recommendations out.
 *
 * ```
 * val recommender = Recommender.open(context, "student.slmrec")
 * val found = recommender.recommend(listOf("50", "181"), k = 10)
 * found.items.forEach { println("${it.rank} ${it.title ?: it.id}") }
 * ```
 *
 * Functions suspend and may be called from any thread, the main thread too. Questions to one
 * recommender are answered one after the other, on a thread of its own. A cancelled question
 * returns at once. Everything that goes wrong is a [SlmrecException].
 *
 * It holds native memory: [close] it when it is no longer needed. What is forgotten is freed some
 * time after the garbage collector has found it.
 */
public class Recommender private constructor(
    private val native: NativeRecommender,
    private val calls: Calls,
) : AutoCloseable {

    /**
     * The [k] best items for a [history] of ids, oldest first.
     *
     * @throws SlmrecException.NoUsableHistory for a history without an item that the catalog has;
     *   [popular] is an answer then.
     */
    public suspend fun recommend(
        history: List<String>,
        k: Int = 10,
        filter: Filter = Filter(),
    ): Recommendations {
        val count = k.toUnsigned("k")
        return calls.call { cancel ->
            native.recommend(history, count, filter.toNative(), cancel).toAnswer()
        }
    }

    /** Ranks [candidates] for a history, with the scores that [recommend] gives them. */
    public suspend fun score(history: List<String>, candidates: List<String>): RankedCandidates =
        calls.call { cancel -> native.score(history, candidates, cancel).toAnswer() }

    /**
     * Why [items] are recommended: for each, up to [maxReasons] items of the history without which
     * its score would be lower. The newest [maxItems] of the history are tried, so it takes a few
     * times as long as [recommend].
     */
    public suspend fun explain(
        history: List<String>,
        items: List<String>,
        maxItems: Int = 16,
        maxReasons: Int = 3,
    ): List<Explanation> {
        val (most, longest) = maxItems.toUnsigned("maxItems") to maxReasons.toUnsigned("maxReasons")
        return calls.call { cancel ->
            native.explain(history, items, most, longest, cancel).toAnswer()
        }
    }

    /** The [k] most popular items, for a person without a usable history. */
    public suspend fun popular(k: Int = 10, filter: Filter = Filter()): List<PopularItem> {
        val count = k.toUnsigned("k")
        return calls.call { native.popular(count, filter.toNative()).toAnswer() }
    }

    /** A state that begins with a [history], which may be empty, and grows by single items. */
    public suspend fun historyState(history: List<String> = emptyList()): HistoryState =
        calls.call { HistoryState(native.historyState(history), calls) }

    /**
     * A state from what [HistoryState.toBytes] gave, for example before the system ended the app.
     *
     * @throws SlmrecException.HistoryState for damaged bytes and those of another bundle.
     */
    public suspend fun restoreHistoryState(bytes: ByteArray): HistoryState =
        calls.call { HistoryState(native.restoreHistoryState(bytes), calls) }

    /** Lets a pack change the answers. After a failure the recommender is as it was. */
    public suspend fun applyPack(pack: File): Unit = calls.call { native.applyPack(pack.path) }

    /** What is in the bundle and what runs it. */
    public suspend fun info(): BundleInfo = calls.call { native.info().toAnswer() }

    /** Replays the bundle's own samples: does this device give what was expected at export? */
    public suspend fun selfTest(): SelfTest =
        calls.call { cancel -> native.selfTest(cancel).toAnswer() }

    /**
     * Frees the native memory when the question that is being answered has its answer. Questions
     * after it throw [SlmrecException.Closed]; history states stay usable. May be called again.
     */
    override fun close(): Unit = native.close()

    public companion object {
        /**
         * Opens the bundle in a file: some tenths of a second.
         *
         * @throws SlmrecException.File where there is none, [SlmrecException.DamagedBundle] where
         *   it is another file or a damaged one.
         */
        public suspend fun open(bundle: File, options: OpenOptions = OpenOptions()): Recommender {
            val calls = Calls()
            return calls.call {
                Recommender(translated { NativeRecommender.open(bundle.path, options.toNative()) }, calls)
            }
        }
    }
}
