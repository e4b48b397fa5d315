#pragma once
// Packed weights from one start to the next: a file beside the model (NAME.kpk), or in the cache
// folder where the model's folder is read-only or a snapshot of the hub's cache. It is known by
// path, size, time and header of every file of the checkpoint and by the form of every matrix; what
// does not fit is said and packed anew.

#include "formats/checkpoint.h"
#include "model/model.h"
#include "model/weight_packer.h"

namespace kogia {

/// Makes the matrices of the packer's jobs: mapped from a kept file that fits, else packed, and
/// then kept if the options ask for it; or borrowed. A file that cannot be used or written is a
/// warning.
void load_weights(const WeightPacker& packer, const Checkpoint& checkpoint,
                  const PackingOptions& options);

}  // namespace kogia
