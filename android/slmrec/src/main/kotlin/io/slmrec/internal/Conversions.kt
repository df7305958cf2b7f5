package io.slmrec.internal

import io.slmrec.BundleInfo
import io.slmrec.Engine
import io.slmrec.Explanation
import io.slmrec.Filter
import io.slmrec.OpenOptions
import io.slmrec.PopularItem
import io.slmrec.Provider
import io.slmrec.RankedCandidates
import io.slmrec.Reason
import io.slmrec.Recommendation
import io.slmrec.Recommendations
import io.slmrec.SelfTest
import io.slmrec.ffi.BundleInfo as NativeBundleInfo
import io.slmrec.ffi.Engine as NativeEngine
import io.slmrec.ffi.Explanations as NativeExplanations
import io.slmrec.ffi.Filter as NativeFilter
import io.slmrec.ffi.OpenOptions as NativeOpenOptions
import io.slmrec.ffi.PopularItems as NativePopularItems
import io.slmrec.ffi.Provider as NativeProvider
import io.slmrec.ffi.RankedCandidates as NativeRankedCandidates
import io.slmrec.ffi.Recommendation as NativeRecommendation
import io.slmrec.ffi.Recommendations as NativeRecommendations
import io.slmrec.ffi.SelfTest as NativeSelfTest

internal fun OpenOptions.toNative(): NativeOpenOptions = NativeOpenOptions(
    onnxruntime = onnxRuntime,
    provider = when (provider) {
        Provider.AUTO -> NativeProvider.AUTO
        Provider.CPU -> NativeProvider.CPU
        Provider.CORE_ML -> NativeProvider.CORE_ML
        Provider.XNNPACK -> NativeProvider.XNNPACK
    },
    threads = threads.toUnsigned("threads"),
    prior = prior,
)

internal fun Filter.toNative(): NativeFilter =
    NativeFilter(includeSeen, block, allow, categories, blockCategories)

internal fun NativeRecommendation.toAnswer(): Recommendation =
    Recommendation(rank.toInt(), id, title, score)

internal fun NativeRecommendations.toAnswer(): Recommendations = Recommendations(
    items = items.map { it.toAnswer() },
    shortfall = shortfall.toInt(),
    unknownItems = unknownItems,
    unknownFilterItems = unknownFilterItems,
    unknownCategories = unknownCategories,
    usedItems = usedItems.toInt(),
    milliseconds = milliseconds,
)

internal fun NativeRankedCandidates.toAnswer(): RankedCandidates =
    RankedCandidates(items.map { it.toAnswer() }, unknownCandidates, unknownItems)

internal fun NativePopularItems.toAnswer(): List<PopularItem> =
    items.map { PopularItem(it.rank.toInt(), it.id, it.title) }

internal fun NativeExplanations.toAnswer(): List<Explanation> = items.map { item ->
    Explanation(item.id, item.reasons.map { Reason(it.id, it.title, it.age.toInt(), it.drop) })
}

internal fun NativeBundleInfo.toAnswer(): BundleInfo = BundleInfo(
    sha256 = sha256,
    createdBy = createdBy,
    items = items.toInt(),
    maxHistory = maxHistory.toInt(),
    base = base,
    precision = precision,
    data = data,
    metrics = metrics,
    prior = prior,
    engine = engine.toAnswer(),
)

internal fun NativeEngine.toAnswer(): Engine =
    Engine(name, version, provider, threads.toInt(), incremental, notice)

internal fun NativeSelfTest.toAnswer(): SelfTest = SelfTest(
    passed = passed,
    samples = samples.toInt(),
    worstCosine = worstCosine,
    minCosine = minCosine,
    meanOverlap = meanOverlap,
    minOverlap = minOverlap,
    computedBy = computedBy,
)
