# LibTorch as two IMPORTED targets: scrna::torch_cpu always, scrna::torch_cuda with SCRNA_CUDA_ENABLED. Own targets
# instead of find_package(Torch): that one insists on nvcc, changes the global CUDA flags and drags in packages
# that a CPU machine does not have. The root is found in CMAKE_PREFIX_PATH (a LibTorch folder, a site-packages/torch,
# or its share/cmake), else in the cache folder that scripts/build.sh fills.
if(DEFINED ENV{XDG_CACHE_HOME})
  set(scrna_cache "$ENV{XDG_CACHE_HOME}/scrna-train")
else()
  set(scrna_cache "$ENV{HOME}/.cache/scrna-train")
endif()
set(scrna_torch_candidates ${CMAKE_PREFIX_PATH})
foreach(prefix ${CMAKE_PREFIX_PATH})
  list(APPEND scrna_torch_candidates "${prefix}/torch" "${prefix}/../..")
endforeach()
find_path(SCRNA_TORCH_ROOT include/ATen/ATen.h
  PATHS ${scrna_torch_candidates} "${scrna_cache}/libtorch-2.11.0/torch" NO_DEFAULT_PATH
  DOC "folder with LibTorch's include/ and lib/")
if(NOT SCRNA_TORCH_ROOT)
  message(FATAL_ERROR "LibTorch was not found in CMAKE_PREFIX_PATH or ${scrna_cache}. Run scripts/build.sh, which fetches it.")
endif()
get_filename_component(SCRNA_TORCH_ROOT_REAL "${SCRNA_TORCH_ROOT}" REALPATH)
file(READ "${SCRNA_TORCH_ROOT_REAL}/include/torch/headeronly/version.h" scrna_torch_header)
string(REGEX MATCH "TORCH_VERSION_MAJOR ([0-9]+).*TORCH_VERSION_MINOR ([0-9]+).*TORCH_VERSION_PATCH ([0-9]+)" _ "${scrna_torch_header}")
set(SCRNA_TORCH_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")

add_library(scrna::c10 SHARED IMPORTED)
set_target_properties(scrna::c10 PROPERTIES IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libc10.so")
add_library(scrna::torch_cpu SHARED IMPORTED)
set_target_properties(scrna::torch_cpu PROPERTIES
  IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libtorch_cpu.so"
  INTERFACE_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/include;${SCRNA_TORCH_ROOT_REAL}/include/torch/csrc/api/include"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/include;${SCRNA_TORCH_ROOT_REAL}/include/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES scrna::c10)
if(SCRNA_CUDA_ENABLED)
  add_library(scrna::c10_cuda SHARED IMPORTED)
  set_target_properties(scrna::c10_cuda PROPERTIES IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libc10_cuda.so")
  add_library(scrna::torch_cuda INTERFACE IMPORTED)
  # Nothing references symbols of libtorch_cuda directly: without --no-as-needed Ubuntu's linker drops it.
  set_target_properties(scrna::torch_cuda PROPERTIES INTERFACE_LINK_LIBRARIES
    "scrna::torch_cpu;scrna::c10_cuda;-Wl,--no-as-needed,${SCRNA_TORCH_ROOT_REAL}/lib/libtorch_cuda.so,--as-needed;CUDA::cudart")
endif()

# LibTorch ships headers of its own copy of fmt; our code is compiled against, and linked with, the system's. A folder
# that holds only the system's fmt comes first on the include path.
get_target_property(scrna_fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt-first")
file(CREATE_LINK "${scrna_fmt_include}/fmt" "${CMAKE_BINARY_DIR}/fmt-first/fmt" SYMBOLIC)
target_include_directories(scrna_options SYSTEM BEFORE INTERFACE "${CMAKE_BINARY_DIR}/fmt-first")
