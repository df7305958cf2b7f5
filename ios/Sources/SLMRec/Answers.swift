/// One recommended item.
public struct Recommendation: Hashable, Sendable, Identifiable {
    /// Place in the list, beginning with 1.
    public let rank: Int
    /// The catalog's id.
    public let id: String
    /// What a person reads, where the catalog has it.
    public let title: String?
    /// Higher is better; comparable only within one list.
    public let score: Float
}

/// The answer to one history.
public struct Recommendations: Hashable, Sendable {
    /// The best items, best first.
    public let items: [Recommendation]
    /// By how many items the list is shorter than asked for, because the filter leaves no more.
    public let shortfall: Int
    /// Ids of the history that the catalog does not have, each once.
    public let unknownItems: [String]
    /// Ids of the filter that the catalog does not have.
    public let unknownFilterItems: [String]
    /// Categories of the filter that no item has.
    public let unknownCategories: [String]
    /// Number of items of the history that the model has read: the newest known ones.
    public let usedItems: Int
    /// Milliseconds that the answer took, without waiting for other questions.
    public let milliseconds: Double
}

/// Given items, ranked.
public struct RankedCandidates: Hashable, Sendable {
    /// Every candidate that the catalog has, once, best first.
    public let items: [Recommendation]
    /// Candidates that the catalog does not have, each once.
    public let unknownCandidates: [String]
    /// Ids of the history that the catalog does not have, each once.
    public let unknownItems: [String]
}

/// An item of the popularity list.
public struct PopularItem: Hashable, Sendable, Identifiable {
    /// Place in the list, beginning with 1.
    public let rank: Int
    /// The catalog's id.
    public let id: String
    /// What a person reads, where the catalog has it.
    public let title: String?
}

/// An item of the history that speaks for a recommendation.
public struct Reason: Hashable, Sendable {
    /// The catalog's id.
    public let id: String
    /// What a person reads, where the catalog has it.
    public let title: String?
    /// Its place in the history, counted from the end: 1 for the newest item.
    public let age: Int
    /// By how much the score is lower without it; above 0.
    public let drop: Float
}

/// The reasons for one item.
public struct Explanation: Hashable, Sendable, Identifiable {
    /// The item that was asked about.
    public let id: String
    /// What speaks for it most, first; may be empty.
    public let reasons: [Reason]
}

/// What is in a bundle and what runs it.
public struct BundleInfo: Hashable, Sendable {
    /// The bundle's identity.
    public let sha256: String
    /// Program and version that wrote it.
    public let createdBy: String
    /// Number of items of the catalog.
    public let items: Int
    /// Longest history that the model reads; older items count as seen only.
    public let maxHistory: Int
    /// Pretrained model that it came from.
    public let base: String
    /// `fp32`, `fp16` or `int8`.
    public let precision: String
    /// What the data is called.
    public let data: String
    /// Figures measured before export, by name.
    public let metrics: [String: Double]
    /// Whether a transition prior is added to the model's scores.
    public let prior: Bool
    /// What runs it.
    public let engine: Engine
}

/// The engine and the provider that really run.
public struct Engine: Hashable, Sendable {
    /// Its name.
    public let name: String
    /// Its version or build.
    public let version: String
    /// The execution provider in use.
    public let provider: String
    /// Threads of one run.
    public let threads: Int
    /// Whether an item that is appended to a history state runs alone.
    public let incremental: Bool
    /// Why it is not the engine that one would expect.
    public let notice: String?
}

/// The bundle's own samples, replayed on this device.
public struct SelfTest: Hashable, Sendable {
    /// Whether every sample is as near to the reference as the bundle asks.
    public let passed: Bool
    /// Number of samples.
    public let samples: Int
    /// Smallest cosine between a user vector and the expected one.
    public let worstCosine: Float
    /// Smallest cosine that passes.
    public let minCosine: Float
    /// Mean share of the expected items that were found.
    public let meanOverlap: Float
    /// Smallest mean overlap that passes.
    public let minOverlap: Float
    /// What made the expected results.
    public let computedBy: String
}
