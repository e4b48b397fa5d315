#include "infer/generate.h"

namespace kogia {

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kInterrupted:
      return "interrupted";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

}  // namespace kogia
