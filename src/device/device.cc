#include "device/device.h"

namespace kogia {

std::string_view name(Compute compute) {
  switch (compute) {
    case Compute::f32:
      return "f32";
    case Compute::bf16:
      return "bf16";
    case Compute::int8:
      return "int8";
    case Compute::fp8:
      return "fp8";
  }
  return "?";
}

}  // namespace kogia
