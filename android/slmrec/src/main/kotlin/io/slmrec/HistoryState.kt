package io.slmrec

import io.slmrec.ffi.HistoryState as NativeHistoryState
import io.slmrec.internal.Calls
import io.slmrec.internal.toAnswer
import io.slmrec.internal.toNative
import io.slmrec.internal.toUnsigned
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.transformLatest
import kotlinx.coroutines.flow.update

/**
 * One person's history with what the model has made of it, so that an appended item costs little.
 * Made by [Recommender.historyState]; it stays usable when its recommender is closed.
 */
public class HistoryState internal constructor(
    private val native: NativeHistoryState,
    private val calls: Calls,
) : AutoCloseable {
    /** Number of appended items, for those who want to hear of the next. */
    private val appended = MutableStateFlow(0L)

    /** Ids of the history that it began with that the catalog does not have, each once. */
    public val unknownItems: List<String> = native.unknownItems()

    /**
     * Appends an item that the person has just taken; `false`, and nothing is changed, for an id
     * that the catalog does not have.
     */
    public suspend fun append(id: String): Boolean {
        val known = calls.call { native.append(id) }
        if (known) {
            appended.update { it + 1 }
        }
        return known
    }

    /** The [k] best items after all that was appended. */
    public suspend fun recommend(k: Int = 10, filter: Filter = Filter()): Recommendations {
        val count = k.toUnsigned("k")
        return calls.call { cancel -> native.recommend(count, filter.toNative(), cancel).toAnswer() }
    }

    /**
     * Recommendations now and after each [append]. Nothing is emitted while the state is empty; a
     * list that is out of date before it is ready is left out.
     */
    @OptIn(ExperimentalCoroutinesApi::class)
    public fun recommendations(k: Int = 10, filter: Filter = Filter()): Flow<Recommendations> =
        appended.transformLatest {
            if (usedItems() > 0) {
                emit(recommend(k, filter))
            }
        }

    /** Number of items that the model reads: the newest known ones. */
    public suspend fun usedItems(): Int = calls.call { native.usedItems().toInt() }

    /** The state as bytes for [Recommender.restoreHistoryState]; some for each item. */
    public suspend fun toBytes(): ByteArray = calls.call { native.toBytes() }

    /** Frees the native memory. Questions after it throw [SlmrecException.Closed]. */
    override fun close(): Unit = native.close()
}
