#pragma once
// Names of a layer's tensors in both worlds.

#include <string>

#include "model/binder.h"

namespace kogia {

/// name("mlp.up_proj", "ffn_up") of layer 3 is {"model.layers.3.mlp.up_proj", "blk.3.ffn_up"}.
class LayerNames {
 public:
  explicit LayerNames(Index layer)
      : hf_("model.layers." + std::to_string(layer) + "."),
        gguf_("blk." + std::to_string(layer) + ".") {}
  TensorName operator()(const std::string& hf, const std::string& gguf) const {
    return {hf_ + hf, gguf_ + gguf};
  }

 private:
  std::string hf_, gguf_;
};

}  // namespace kogia
