package io.slmrec.internal

import io.slmrec.SlmrecException
import io.slmrec.ffi.CancelToken
import io.slmrec.ffi.SlmrecException as NativeException
import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.async

/**
 * Blocking calls as suspending ones. One runs at a time: the native side would let the others wait,
 * each on a thread of the pool.
 */
@OptIn(ExperimentalCoroutinesApi::class)
internal class Calls {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.IO.limitedParallelism(1))

    /**
     * Runs [body] off the caller's thread. A caller that is cancelled returns at once; the native
     * call ends at its next look at the token, and its answer is dropped.
     */
    suspend fun <T> call(body: (CancelToken) -> T): T {
        val token = translated { CancelToken() }
        // Not a child of the caller, which would have to wait for it.
        val answer = scope.async { translated { body(token) } }
        // Not before the body has ended: generated code does not guard an object that is an
        // argument against being closed meanwhile.
        answer.invokeOnCompletion { token.close() }
        try {
            return answer.await()
        } catch (cancelled: CancellationException) {
            try {
                token.cancel()
            } catch (_: IllegalStateException) {
                // Closed: the call has ended.
            }
            answer.cancel()
            throw cancelled
        }
    }
}

/** Runs native code; what it throws becomes a [SlmrecException]. */
internal inline fun <T> translated(body: () -> T): T =
    try {
        body()
    } catch (error: NativeException) {
        throw error.toPublic()
    } catch (error: IllegalStateException) {
        // What generated objects throw after `close`.
        if (error is CancellationException) throw error
        throw SlmrecException.Closed(error.message.orEmpty(), error)
    } catch (error: io.slmrec.ffi.InternalException) {
        throw SlmrecException.Internal(error.message.orEmpty(), error)
    } catch (error: LinkageError) {
        throw SlmrecException.NativeLibrary(error.message.orEmpty(), error)
    } catch (error: RuntimeException) {
        // Generated code checks the library's version and its functions with plain exceptions.
        throw SlmrecException.NativeLibrary(error.message.orEmpty(), error)
    }

internal fun NativeException.toPublic(): Exception {
    val text = message.orEmpty()
    return when (this) {
        is NativeException.InvalidArgument -> SlmrecException.InvalidArgument(text, this)
        is NativeException.File -> SlmrecException.File(text, this)
        is NativeException.DamagedBundle -> SlmrecException.DamagedBundle(text, this)
        is NativeException.UnsupportedBundle -> SlmrecException.UnsupportedBundle(text, this)
        is NativeException.NoUsableHistory -> SlmrecException.NoUsableHistory(text, this)
        is NativeException.OnnxRuntime -> SlmrecException.OnnxRuntime(text, this)
        is NativeException.Provider -> SlmrecException.UnavailableProvider(text, this)
        is NativeException.Engine -> SlmrecException.Engine(text, this)
        is NativeException.HistoryState -> SlmrecException.HistoryState(text, this)
        // Only for a caller that was cancelled, who does not see it.
        is NativeException.Cancelled -> CancellationException(text)
        is NativeException.Internal -> SlmrecException.Internal(text, this)
    }
}

internal fun Int.toUnsigned(name: String): UInt {
    if (this < 0) {
        throw SlmrecException.InvalidArgument("$name: expected 0 or more, found $this")
    }
    return toUInt()
}
