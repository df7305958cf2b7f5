package io.slmrec

/** How a bundle is opened. */
public data class OpenOptions(
    /** File of the ONNX Runtime library; by default the one that the app brings. */
    val onnxRuntime: String? = null,
    /** Which execution provider runs the model. */
    val provider: Provider = Provider.AUTO,
    /** Threads of one run. More than one costs battery and rarely pays for small models. */
    val threads: Int = 1,
    /** Whether the bundle's transition prior, where it has one, is added to the model's scores. */
    val prior: Boolean = true,
)

/** An execution provider of ONNX Runtime. */
public enum class Provider {
    /** The one that is right for the system; at present the CPU. */
    AUTO,

    /** The CPU. */
    CPU,

    /** Apple's CoreML. */
    CORE_ML,

    /** XNNPACK on ARM and x86 CPUs. */
    XNNPACK,
}

/** Which items may be recommended. */
public data class Filter(
    /** Recommend items of the history again. */
    val includeSeen: Boolean = false,
    /** Ids that are never recommended. */
    val block: List<String> = emptyList(),
    /** When given, only these ids are recommended. */
    val allow: List<String>? = null,
    /** When given, only items of at least one of these categories are recommended. */
    val categories: List<String>? = null,
    /** Items of one of these categories are never recommended. */
    val blockCategories: List<String> = emptyList(),
)

/** One recommended item. */
public data class Recommendation(
    /** Place in the list, beginning with 1. */
    val rank: Int,
    /** The catalog's id. */
    val id: String,
    /** What a person reads, where the catalog has it. */
    val title: String?,
    /** Higher is better; comparable only within one list. */
    val score: Float,
)

/** The answer to one history. */
public data class Recommendations(
    /** The best items, best first. */
    val items: List<Recommendation>,
    /** By how many items the list is shorter than asked for, because the filter leaves no more. */
    val shortfall: Int,
    /** Ids of the history that the catalog does not have, each once. */
    val unknownItems: List<String>,
    /** Ids of the filter that the catalog does not have. */
    val unknownFilterItems: List<String>,
    /** Categories of the filter that no item has. */
    val unknownCategories: List<String>,
    /** Number of items of the history that the model has read: the newest known ones. */
    val usedItems: Int,
    /** Milliseconds that the answer took, without waiting for other questions. */
    val milliseconds: Double,
)

/** Given items, ranked. */
public data class RankedCandidates(
    /** Every candidate that the catalog has, once, best first. */
    val items: List<Recommendation>,
    /** Candidates that the catalog does not have, each once. */
    val unknownCandidates: List<String>,
    /** Ids of the history that the catalog does not have, each once. */
    val unknownItems: List<String>,
)

/** An item of the popularity list. */
public data class PopularItem(
    /** Place in the list, beginning with 1. */
    val rank: Int,
    /** The catalog's id. */
    val id: String,
    /** What a person reads, where the catalog has it. */
    val title: String?,
)

/** An item of the history that speaks for a recommendation. */
public data class Reason(
    /** The catalog's id. */
    val id: String,
    /** What a person reads, where the catalog has it. */
    val title: String?,
    /** Its place in the history, counted from the end: 1 for the newest item. */
    val age: Int,
    /** By how much the score is lower without it; above 0. */
    val drop: Float,
)

/** The reasons for one item. */
public data class Explanation(
    /** The item that was asked about. */
    val id: String,
    /** What speaks for it most, first; may be empty. */
    val reasons: List<Reason>,
)

/** What is in a bundle and what runs it. */
public data class BundleInfo(
    /** The bundle's identity. */
    val sha256: String,
    /** Program and version that wrote it. */
    val createdBy: String,
    /** Number of items of the catalog. */
    val items: Int,
    /** Longest history that the model reads; older items count as seen only. */
    val maxHistory: Int,
    /** Pretrained model that it came from. */
    val base: String,
    /** `fp32`, `fp16` or `int8`. */
    val precision: String,
    /** What the data is called. */
    val data: String,
    /** Figures measured before export, by name. */
    val metrics: Map<String, Double>,
    /** Whether a transition prior is added to the model's scores. */
    val prior: Boolean,
    /** What runs it. */
    val engine: Engine,
)

/** The engine and the provider that really run. */
public data class Engine(
    /** Its name. */
    val name: String,
    /** Its version or build. */
    val version: String,
    /** The execution provider in use. */
    val provider: String,
    /** Threads of one run. */
    val threads: Int,
    /** Whether an item that is appended to a history state runs alone. */
    val incremental: Boolean,
    /** Why it is not the engine that one would expect. */
    val notice: String?,
)

/** The bundle's own samples, replayed on this device. */
public data class SelfTest(
    /** Whether every sample is as near to the reference as the bundle asks. */
    val passed: Boolean,
    /** Number of samples. */
    val samples: Int,
    /** Smallest cosine between a user vector and the expected one. */
    val worstCosine: Float,
    /** Smallest cosine that passes. */
    val minCosine: Float,
    /** Mean share of the expected items that were found. */
    val meanOverlap: Float,
    /** Smallest mean overlap that passes. */
    val minOverlap: Float,
    /** What made the expected results. */
    val computedBy: String,
)
