#include "formats/quantize_types.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <numeric>

#include "base/error.h"

namespace kogia {
namespace {

struct Named {
  std::string name;
  Quantization quantization;
};
const std::vector<Named>& named() {
  static const std::vector<Named> kNamed = {
      {"FP8", Quantization::kFp8},       {"Q8_0", Quantization::kQ8_0},
      {"Q4_0", Quantization::kQ4_0},     {"Q4_K", Quantization::kQ4_K_M},
      {"Q4_K_M", Quantization::kQ4_K_M}, {"Q4_K_S", Quantization::kQ4_K_S},
      {"Q6_K", Quantization::kQ6_K}};
  return kNamed;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

enum class Category { kEmbedding, kHead, kValue, kKey, kAttentionOut, kFfnDown, kOther };

Category category_of(std::string_view name) {
  if (name == "output.weight") return Category::kHead;
  if (name == "token_embd.weight") return Category::kEmbedding;
  for (const char* value : {"attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"}) {
    if (contains(name, value)) return Category::kValue;
  }
  if (contains(name, "attn_k.weight")) return Category::kKey;
  if (contains(name, "attn_output.weight")) return Category::kAttentionOut;
  if (contains(name, "ffn_down")) return Category::kFfnDown;
  return Category::kOther;
}

/// More than a vector, a weight, and none of those that are small and matter.
bool is_quantized(const TensorToQuantize& t) {
  const bool is_vector = std::all_of(t.shape.begin(), t.shape.end() - (t.shape.empty() ? 0 : 1),
                                     [](Index d) { return d == 1; });
  return !is_vector && t.name.ends_with("weight") && !contains(t.name, "_norm.weight") &&
         !contains(t.name, "ffn_gate_inp.weight");
}

/// The layer of blk.N.…; -1: none.
Index layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return -1;
  Index layer = 0;
  std::size_t at = 4;
  for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && at < 12; ++at) {
    layer = layer * 10 + (name[at] - '0');
  }
  return at > 4 && at < name.size() && name[at] == '.' ? layer : -1;
}

DType main_type(Quantization mixture) {
  switch (mixture) {
    case Quantization::kQ8_0:
      return DType::q8_0;
    case Quantization::kQ4_0:
      return DType::q4_0;
    case Quantization::kQ4_K_M:
    case Quantization::kQ4_K_S:
      return DType::q4_k;
    case Quantization::kQ6_K:
      return DType::q6_k;
    case Quantization::kFp8:
      break;
  }
  KOGIA_CHECK(mixture != Quantization::kFp8);
  return DType::f32;
}

/// The first and the last eighth of the layers, and every third between.
bool gets_more_bits(Index i, Index n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

class Chooser {
 public:
  Chooser(Quantization mixture, std::span<const TensorToQuantize> tensors,
          const MixtureFacts& facts)
      : mixture_(mixture), facts_(facts) {
    for (const TensorToQuantize& t : tensors) {
      n_values_ += category_of(t.name) == Category::kValue ? 1 : 0;
      tied_ = tied_ && t.name != "output.weight";
    }
  }

  /// In the order of the layers: some choices count what came before.
  DType choose(const TensorToQuantize& t) {
    if (!is_quantized(t)) return t.dtype;
    const Index cols = t.shape.back();
    const Category category = category_of(t.name);
    DType type = main_type(mixture_);
    if (category == Category::kHead || (tied_ && category == Category::kEmbedding)) {
      if (type != DType::q8_0) type = DType::q6_k;
    } else if (category == Category::kValue) {
      type = value_type(type);
    } else if (category == Category::kKey && facts_.n_experts == 8) {
      type = DType::q8_0;
    } else if (category == Category::kFfnDown) {
      type = down_type(type, t.name);
    } else if (category == Category::kAttentionOut && facts_.n_experts == 8 &&
               type == DType::q4_k) {
      type = DType::q5_k;
    }
    return type_that_fits(type, cols);
  }

 private:
  bool is_70b() const {
    return facts_.architecture == "llama" && facts_.n_layers == 80 &&
           facts_.n_heads != facts_.n_heads_kv;
  }
  DType value_type(DType type) {
    const Index i = i_value_++;
    if (mixture_ == Quantization::kQ4_K_M && gets_more_bits(i, n_values_)) type = DType::q6_k;
    if (mixture_ == Quantization::kQ4_K_S && i < 4) type = DType::q5_k;
    if (is_70b() && type == DType::q4_k) type = DType::q5_k;
    if (facts_.n_experts == 8) type = DType::q8_0;
    return type;
  }
  DType down_type(DType type, std::string_view name) {
    const Index counted = i_down_++, n = facts_.n_layers;
    const Index i = facts_.n_experts > 1 ? std::max<Index>(layer_of(name), 0) : counted;
    if (mixture_ == Quantization::kQ4_K_M && gets_more_bits(i, n)) return DType::q6_k;
    if (mixture_ == Quantization::kQ4_K_S && i < n / 8) return DType::q5_k;
    if (mixture_ == Quantization::kQ4_0 && facts_.has_importance && i < n / 8) return DType::q4_1;
    return type;
  }

  Quantization mixture_;
  MixtureFacts facts_;
  bool tied_ = true;
  Index n_values_ = 0, i_value_ = 0, i_down_ = 0;
};

}  // namespace

std::optional<Quantization> parse_quantization(std::string_view name) {
  std::string upper(name);
  std::ranges::transform(upper, upper.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  for (const Named& n : named()) {
    if (n.name == upper) return n.quantization;
  }
  return std::nullopt;
}

const std::vector<std::string>& quantization_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const Named& n : named()) names.push_back(n.name);
    return names;
  }();
  return kNames;
}

std::uint32_t gguf_file_type(Quantization mixture) {
  return mixture == Quantization::kQ4_K_S ? 14 : gguf_file_type(main_type(mixture));
}

std::uint32_t gguf_file_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q8_0:
      return 7;
    case DType::q5_0:
      return 8;
    case DType::q5_1:
      return 9;
    case DType::q4_k:
      return 15;
    case DType::q5_k:
      return 17;
    case DType::q6_k:
      return 18;
    case DType::bf16:
      return 32;
    default:
      return 1;
  }
}

DType type_that_fits(DType type, Index cols) {
  if (cols % info(type).block_values == 0) return type;
  if (info(type).block_values != 256 || cols % 32 != 0) return DType::f16;
  return type == DType::q4_k ? DType::q5_0 : type == DType::q5_k ? DType::q5_1 : DType::q8_0;
}

std::vector<DType> choose_types(Quantization mixture, std::span<const TensorToQuantize> tensors,
                                const MixtureFacts& facts) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    const Index la = layer_of(tensors[a].name), lb = layer_of(tensors[b].name);
    return la != lb ? la < lb : tensors[a].name < tensors[b].name;
  });
  Chooser chooser(mixture, tensors, facts);
  std::vector<DType> types(tensors.size());
  for (const std::size_t i : order) types[i] = chooser.choose(tensors[i]);
  return types;
}

bool is_fp8_weight(std::string_view name, std::span<const Index> shape) {
  if (shape.size() != 2 || name.ends_with(".eh_proj.weight")) return false;
  return name.ends_with("_proj.weight") || name.ends_with(".kv_a_proj_with_mqa.weight");
}

}  // namespace kogia
