# acorn_add_test(NAME name SOURCES file... [LIBS target...] [LABELS label...] [TIMEOUT seconds])
#
# One GoogleTest program acorn_test_NAME; ctest lists each of its cases as "NAME.Suite.Case". The sources see the
# runtime's, the schema's, the public and the repository's include roots, and GoogleTest's main.
#   LIBS     acorn_<layer>, acorn_compiler, ...; nothing else is linked
#   LABELS   of fast, kernel, golden, oom, evil, fuzz, slow; default fast
#   TIMEOUT  seconds for one case; default 120
# In a cross build the sources see the macro ACORN_EMULATED: a test may do less there.
# A case runs in the build folder with ACORN_SOURCE_DIR (a macro and an environment variable) naming the repository.
include(GoogleTest)
function(acorn_add_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;TIMEOUT" "SOURCES;LIBS;LABELS")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_NAME OR NOT arg_SOURCES)
    message(FATAL_ERROR "acorn_add_test: NAME and SOURCES are needed; unknown: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(target acorn_test_${arg_NAME})
  add_executable(${target} ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE ${arg_LIBS} acorn_runtime_includes acorn_common_flags GTest::gtest GTest::gtest_main)
  target_compile_definitions(${target} PRIVATE ACORN_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    $<$<BOOL:${CMAKE_CROSSCOMPILING}>:ACORN_EMULATED>)
  # There the library is looked at, and a test that Clang optimises with every sanitizer takes three times as long to compile.
  target_compile_options(${target} PRIVATE $<$<BOOL:${ACORN_FUZZ}>:-O0>)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/tests")
  gtest_discover_tests(${target}
    TEST_PREFIX "${arg_NAME}."
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60
    WORKING_DIRECTORY "${PROJECT_BINARY_DIR}"
    PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
               ENVIRONMENT "ACORN_SOURCE_DIR=${PROJECT_SOURCE_DIR}")
endfunction()
