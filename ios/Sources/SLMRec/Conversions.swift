internal import SLMRecFFI

extension SLMRecError {
    init(_ native: SlmrecError) {
        self =
            switch native {
            case .InvalidArgument(let message): .invalidArgument(message)
            case .File(let message): .file(message)
            case .DamagedBundle(let message): .damagedBundle(message)
            case .UnsupportedBundle(let message): .unsupportedBundle(message)
            case .NoUsableHistory(let message): .noUsableHistory(message)
            case .OnnxRuntime(let message): .onnxRuntime(message)
            case .Provider(let message): .unavailableProvider(message)
            case .Engine(let message): .engine(message)
            case .HistoryState(let message): .historyState(message)
            // Only for a task that was cancelled, which does not see it.
            case .Cancelled(let message): .internal(message)
            case .Internal(let message): .internal(message)
            }
    }
}

/// A count of the caller's for the native side.
func unsigned(_ count: Int, _ name: String) throws -> UInt32 {
    guard let count = UInt32(exactly: count) else {
        throw SLMRecError.invalidArgument("\(name): expected 0 to \(UInt32.max), found \(count)")
    }
    return count
}

extension SLMRecFFI.OpenOptions {
    init(_ options: OpenOptions) throws {
        let provider: SLMRecFFI.Provider =
            switch options.provider {
            case .auto: .auto
            case .cpu: .cpu
            case .coreML: .coreMl
            case .xnnpack: .xnnpack
            }
        self.init(
            onnxruntime: options.onnxRuntime,
            provider: provider,
            threads: try unsigned(options.threads, "threads"),
            prior: options.prior
        )
    }
}

extension SLMRecFFI.Filter {
    init(_ filter: Filter) {
        self.init(
            includeSeen: filter.includeSeen,
            block: filter.block,
            allow: filter.allow,
            categories: filter.categories,
            blockCategories: filter.blockCategories
        )
    }
}

extension Recommendation {
    init(_ native: SLMRecFFI.Recommendation) {
        self.init(
            rank: Int(native.rank), id: native.id, title: native.title, score: native.score)
    }
}

extension Recommendations {
    init(_ native: SLMRecFFI.Recommendations) {
        self.init(
            items: native.items.map { Recommendation($0) },
            shortfall: Int(native.shortfall),
            unknownItems: native.unknownItems,
            unknownFilterItems: native.unknownFilterItems,
            unknownCategories: native.unknownCategories,
            usedItems: Int(native.usedItems),
            milliseconds: native.milliseconds
        )
    }
}

extension RankedCandidates {
    init(_ native: SLMRecFFI.RankedCandidates) {
        self.init(
            items: native.items.map { Recommendation($0) },
            unknownCandidates: native.unknownCandidates,
            unknownItems: native.unknownItems
        )
    }
}

extension PopularItem {
    init(_ native: SLMRecFFI.PopularItem) {
        self.init(rank: Int(native.rank), id: native.id, title: native.title)
    }
}

extension Explanation {
    init(_ native: SLMRecFFI.Reasons) {
        let reasons = native.reasons.map {
            Reason(id: $0.id, title: $0.title, age: Int($0.age), drop: $0.drop)
        }
        self.init(id: native.id, reasons: reasons)
    }
}

extension BundleInfo {
    init(_ native: SLMRecFFI.BundleInfo) {
        self.init(
            sha256: native.sha256,
            createdBy: native.createdBy,
            items: Int(native.items),
            maxHistory: Int(native.maxHistory),
            base: native.base,
            precision: native.precision,
            data: native.data,
            metrics: native.metrics,
            prior: native.prior,
            engine: Engine(native.engine)
        )
    }
}

extension Engine {
    init(_ native: SLMRecFFI.Engine) {
        self.init(
            name: native.name,
            version: native.version,
            provider: native.provider,
            threads: Int(native.threads),
            incremental: native.incremental,
            notice: native.notice
        )
    }
}

extension SelfTest {
    init(_ native: SLMRecFFI.SelfTest) {
        self.init(
            passed: native.passed,
            samples: Int(native.samples),
            worstCosine: native.worstCosine,
            minCosine: native.minCosine,
            meanOverlap: native.meanOverlap,
            minOverlap: native.minOverlap,
            computedBy: native.computedBy
        )
    }
}
