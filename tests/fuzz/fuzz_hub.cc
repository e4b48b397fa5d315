// The answers of a hub, from a stranger: a listing is read and a model chosen from it, or it is
// refused; so are an index of weights, the name of a model and a Content-Range.

#include <string>
#include <string_view>

#include "base/error.h"
#include "hub/choose.h"
#include "hub/content_range.h"
#include "hub/listing.h"
#include "hub/names.h"

namespace {

template <class F>
void fine_or_refused(F&& f) {
  try {
    f();
  } catch (const kogia::Error&) {
  }
}

void require_safe(const std::vector<kogia::hub::RemoteFile>& files) {
  for (const auto& file : files) {
    KOGIA_CHECK(kogia::hub::is_safe_path(file.path));
    KOGIA_CHECK(file.blob.empty() || kogia::hub::is_blob(file.blob));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace kogia::hub;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fine_or_refused([&] {
    const Listing listing = parse_listing(text, "hub");
    require_safe(listing.files);
    for (const char* wanted : {"", "Q4_K_M", "a/b.gguf", "config.json"}) {
      fine_or_refused([&] {
        const ModelName name{.repository = "o/n", .revision = "main", .file = wanted};
        const Choice choice = choose_files(listing, name);
        KOGIA_CHECK(!choice.files.empty());
        require_safe(choice.files);
      });
    }
  });
  fine_or_refused([&] {
    for (const std::string& file : parse_weight_files(text, "index")) {
      KOGIA_CHECK(is_safe_path(file));
    }
  });
  if (const auto name = parse_model_name(text)) {
    KOGIA_CHECK(name->file.empty() || is_safe_path(name->file));
    KOGIA_CHECK(parse_model_name(name->text()).has_value());
  }
  fine_or_refused([&] {
    Response response;
    response.headers["content-range"] = text;
    check_content_range(response, 0, 9, {.path = "w", .size = 10, .blob = {}}, "hub");
  });
  return 0;
}
