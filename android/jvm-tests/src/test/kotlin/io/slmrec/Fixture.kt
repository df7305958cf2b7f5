package io.slmrec

import java.io.File
import kotlinx.coroutines.runBlocking

/** The bundle that the task has made: items `item-1` to `item-30`, histories of up to 6 items. */
internal val bundle: File = File(setting("slmrec.bundle"))

internal val options: OpenOptions = OpenOptions(onnxRuntime = setting("slmrec.onnxruntime"))

private fun setting(name: String): String {
    val value = System.getProperty(name).orEmpty()
    require(value.isNotEmpty()) { "-D$name is not set; run `cargo xtask test-android`" }
    return value
}

/** A recommender for one test. */
internal fun <T> recommending(test: suspend (Recommender) -> T): T = runBlocking {
    Recommender.open(bundle, options).use { test(it) }
}

/** Different histories, some with an item that the catalog does not have. */
internal fun history(n: Int): List<String> =
    listOf("item-${1 + n % 30}", "nowhere-$n", "item-${1 + n * 7 % 30}", "item-${1 + n / 30 % 30}")
