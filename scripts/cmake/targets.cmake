# Two functions, so that each folder's CMakeLists.txt says only what it holds and what it may use.

# scrna_add_library(name SOURCES a.cpp ... [CUDA_SOURCES a.cu ...] [PUBLIC lib ...] [PRIVATE lib ...])
function(scrna_add_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;CUDA_SOURCES;PUBLIC;PRIVATE" ${ARGN})
  if(SCRNA_CUDA_ENABLED)
    list(APPEND arg_SOURCES ${arg_CUDA_SOURCES})
  endif()
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC scrna_options ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
endfunction()

# scrna_add_test(name SOURCES a_test.cpp ... LIBRARIES lib ... [LABELS cpu gpu slow])
# One executable per folder; every TEST becomes a ctest entry of its own. Several run at once: their threads must not
# spin while they wait for each other (apps/scrna_train/wait_policy.h).
function(scrna_add_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES;LABELS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE scrna_options ${arg_LIBRARIES} GTest::gtest GTest::gtest_main)
  include(GoogleTest)
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120
    PROPERTIES LABELS "${arg_LABELS}" ENVIRONMENT OMP_WAIT_POLICY=PASSIVE WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
endfunction()
