#include "model/trained_weights.h"

#include <algorithm>

#include "base/error.h"
#include "base/page_memory.h"
#include "tensor/convert.h"

namespace kogia {

float* TrainedWeights::gradient(const std::string& tensor, Index n, Index uses) {
  Gradient& g = gradients_[tensor];
  KOGIA_CHECK(g.n == 0 || g.n == n);
  g.n = n;
  const auto size = static_cast<std::size_t>(n * uses);
  // Grown only before anybody holds a pointer: a tied head and embedding ask for all at once.
  KOGIA_CHECK(g.values.empty() || g.values.size() >= size);
  if (g.values.empty()) g.values.assign(size, 0);
  return g.values.data();
}

void TrainedWeights::pack(std::vector<PackJob> jobs, const Checkpoint& checkpoint, Device& device) {
  jobs_ = std::move(jobs);
  checkpoint_ = &checkpoint;
  device_ = &device;
  const std::function<void(const LoadProgress&)> silent;
  const WeightPacker packer(jobs_, checkpoint, device, silent);
  plan_ = packer.plan();
  packed_ = allocate_pages(plan_.n_bytes);
  packer.pack(plan_, packed_.get());
  packer.adopt(plan_, packed_);
}

void TrainedWeights::refresh() {
  const std::function<void(const LoadProgress&)> silent;
  WeightPacker(jobs_, *checkpoint_, *device_, silent).pack(plan_, packed_.get());
  for (const Vector& v : vectors_) {
    dequantize_row(v.entry->view.dtype, v.entry->view.data, v.out->data(),
                   static_cast<Index>(v.out->size()));
  }
}

void TrainedWeights::clear_gradients() {
  for (auto& [name, g] : gradients_) std::fill(g.values.begin(), g.values.end(), 0.0f);
}

void TrainedWeights::add_uses() {
  for (auto& [name, g] : gradients_) {
    for (Index use = 1; use < g.uses(); ++use) {
      float* const from = g.values.data() + use * g.n;
      device_->add(
          {.x = from, .x_stride = g.n, .y = g.values.data(), .y_stride = g.n, .rows = 1, .n = g.n});
    }
  }
}

}  // namespace kogia
