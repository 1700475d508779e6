//! `org.hearth.Model1`: what is loaded.

use super::ROOT;
use crate::service::ModelInfo;
use zbus::{OwnedObjectPath, interface};

pub struct Model1 {
    info: ModelInfo,
}

impl Model1 {
    pub fn new(info: ModelInfo) -> Self {
        Self { info }
    }

    /// Its object: letters and digits of the name as they are, every other byte as `_xx`.
    pub fn object_path(&self) -> zbus::Result<OwnedObjectPath> {
        let mut path = format!("{ROOT}/models/");
        for byte in self.info.name.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(byte.into());
            } else {
                path += &format!("_{byte:02x}");
            }
        }
        if self.info.name.is_empty() {
            path.push('_');
        }
        OwnedObjectPath::try_from(path)
    }
}

/// The loaded model. Another model is another object: watch the ObjectManager's InterfacesAdded.
#[interface(name = "org.hearth.Model1")]
impl Model1 {
    /// What clients call it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.info.name
    }

    /// Its file.
    #[zbus(property(emits_changed_signal = "const"))]
    fn path(&self) -> String {
        self.info.path.display().to_string()
    }

    /// As the file names it, such as `llama` or `qwen3`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn architecture(&self) -> &str {
        &self.info.architecture
    }

    /// How its weights are stored, such as `Q4_K_M`; empty where the file does not say.
    #[zbus(property(emits_changed_signal = "const"))]
    fn file_type(&self) -> &str {
        &self.info.file_type
    }

    /// Weights.
    #[zbus(property(emits_changed_signal = "const"))]
    fn parameters(&self) -> u64 {
        self.info.parameters
    }

    /// Bytes of its file.
    #[zbus(property(emits_changed_signal = "const"))]
    fn bytes(&self) -> u64 {
        self.info.bytes.0
    }

    /// Bytes of caches and scratch beside it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn cache_bytes(&self) -> u64 {
        self.info.cache.0
    }

    /// Most tokens of one conversation.
    #[zbus(property(emits_changed_signal = "const"))]
    fn context(&self) -> u32 {
        self.info.context as u32
    }

    /// Most tokens that the model was trained for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn context_trained(&self) -> u32 {
        self.info.context_trained as u32
    }

    /// Where it runs: `cpu`, `vulkan`, `cuda`. More may be added.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend(&self) -> &str {
        self.info.backend
    }

    /// Threads that may compute at once.
    #[zbus(property(emits_changed_signal = "const"))]
    fn threads(&self) -> u32 {
        self.info.threads as u32
    }
}
