/// How a bundle is opened.
public struct OpenOptions: Hashable, Sendable {
    /// File of the ONNX Runtime library; by default the one that the app brings.
    public var onnxRuntime: String?
    /// Which execution provider runs the model.
    public var provider: Provider
    /// Threads of one run. More than one costs battery and rarely pays for small models.
    public var threads: Int
    /// Whether the bundle's transition prior, where it has one, is added to the model's scores.
    public var prior: Bool

    /// Options; what is left out has the value that is right for most apps.
    public init(
        onnxRuntime: String? = nil,
        provider: Provider = .auto,
        threads: Int = 1,
        prior: Bool = true
    ) {
        self.onnxRuntime = onnxRuntime
        self.provider = provider
        self.threads = threads
        self.prior = prior
    }
}

/// An execution provider of ONNX Runtime.
public enum Provider: Hashable, Sendable, CaseIterable {
    /// The one that is right for the system; at present the CPU.
    case auto
    /// The CPU.
    case cpu
    /// Apple's CoreML.
    case coreML
    /// XNNPACK on ARM and x86 CPUs.
    case xnnpack
}

/// Which items may be recommended.
public struct Filter: Hashable, Sendable {
    /// Recommend items of the history again.
    public var includeSeen: Bool
    /// Ids that are never recommended.
    public var block: [String]
    /// When given, only these ids are recommended.
    public var allow: [String]?
    /// When given, only items of at least one of these categories are recommended.
    public var categories: [String]?
    /// Items of one of these categories are never recommended.
    public var blockCategories: [String]

    /// A filter; without arguments, everything that the history does not have may be recommended.
    public init(
        includeSeen: Bool = false,
        block: [String] = [],
        allow: [String]? = nil,
        categories: [String]? = nil,
        blockCategories: [String] = []
    ) {
        self.includeSeen = includeSeen
        self.block = block
        self.allow = allow
        self.categories = categories
        self.blockCategories = blockCategories
    }
}
