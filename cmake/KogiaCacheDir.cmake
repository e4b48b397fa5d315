# KOGIA_CACHE_DIR: where downloaded packages are kept between clones, as tools/lib.sh has it. One that is set
# already stays.
if(NOT KOGIA_CACHE_DIR)
  if(DEFINED ENV{KOGIA_CACHE})
    set(KOGIA_CACHE_DIR "$ENV{KOGIA_CACHE}")
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(KOGIA_CACHE_DIR "$ENV{XDG_CACHE_HOME}/kogia")
  else()
    set(KOGIA_CACHE_DIR "$ENV{HOME}/.cache/kogia")
  endif()
endif()
