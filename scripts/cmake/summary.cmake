# What was found, in one glance at the end of the configure step.
message(STATUS "scrna-train ${PROJECT_VERSION}, ${CMAKE_BUILD_TYPE}")
message(STATUS "  compiler    ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
message(STATUS "  LibTorch    ${SCRNA_TORCH_VERSION} in ${SCRNA_TORCH_ROOT_REAL}")
message(STATUS "  CUDA        ${SCRNA_CUDA_ENABLED} ${CMAKE_CUDA_COMPILER_VERSION}")
message(STATUS "  HDF5        ${HDF5_VERSION}")
message(STATUS "  sanitizers  ${SCRNA_SANITIZE}")
