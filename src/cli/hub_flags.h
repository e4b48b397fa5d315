#pragma once
// Where the hub and its cache are: what the environment says, by the names that Hugging Face uses.

#include <filesystem>
#include <string>

#include "hub/http.h"

namespace kogia::cli {

/// HF_HUB_CACHE, else HUGGINGFACE_HUB_CACHE, else hub/ in HF_HOME, else huggingface/hub in
/// XDG_CACHE_HOME or ~/.cache; empty where nothing says where that is.
std::filesystem::path hub_cache_folder();

/// HF_ENDPOINT; HF_TOKEN, else HUGGING_FACE_HUB_TOKEN, else the file HF_TOKEN_PATH or HF_HOME/token
/// (not with HF_HUB_DISABLE_IMPLICIT_TOKEN); HF_HUB_DOWNLOAD_TIMEOUT. Throws Error(kUsage) for what
/// cannot be.
hub::Server hub_server();

/// HF_HUB_OFFLINE is set.
bool hub_is_offline();

/// What --help says of a MODEL.
inline constexpr const char* kModelHelp =
    "a folder as Hugging Face lays it out, a .gguf file, or the name of a pulled repository";

/// A MODEL as people name it: a path, or a repository that was pulled ("org/name:Q4_K_M").
std::filesystem::path find_model(const std::string& model);

}  // namespace kogia::cli
