# What the project takes from outside, found where toolchains/setup.sh put it or where the system has it. Nothing is
# downloaded here.
#
#   acorn_flatbuffers          headers of FlatBuffers (INTERFACE) and ACORN_FLATC, the schema compiler
#   acorn_pthreadpool, acorn_cpuinfo   for the POSIX port: static where setup.sh built them, else the system's, else none and
#                              the port's own parts serve; ACORN_HAVE_PTHREADPOOL and ACORN_HAVE_CPUINFO say whether they are there.
#                              pthreadpool runs loops where ACORN_PTHREADPOOL asks for it, and in the port's tests
#   acorn_uring                liburing, likewise (ACORN_HAVE_URING): the POSIX port reads by it where the kernel allows
#   acorn_sodium               libsodium, static where it is there so (ACORN_HAVE_SODIUM): signatures of model files
#   XNNPACK's microkernels     cmake/FindXNNPACKMicrokernels.cmake
#   Eigen3::Eigen, nlohmann_json::nlohmann_json, CLI11::CLI11, acorn_utf8proc    for acornc
#   GTest::gtest, benchmark::benchmark    for tests and benches; in a cross build GoogleTest is built from Debian's sources

set(ACORN_DEPS_DIR "${PROJECT_SOURCE_DIR}/build/deps" CACHE PATH "Where toolchains/setup.sh unpacked what the system does not have")

# Debian's names of the target machine: amd64 and x86_64-linux-gnu. Android has another C library, for which Debian has nothing.
if(ANDROID)
  set(ACORN_DEBIAN_ARCH android)
  set(ACORN_DEBIAN_TRIPLET aarch64-linux-android)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(ACORN_DEBIAN_ARCH amd64)
  set(ACORN_DEBIAN_TRIPLET x86_64-linux-gnu)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(ACORN_DEBIAN_ARCH arm64)
  set(ACORN_DEBIAN_TRIPLET aarch64-linux-gnu)
else()
  set(ACORN_DEBIAN_ARCH "${CMAKE_SYSTEM_PROCESSOR}")
  set(ACORN_DEBIAN_TRIPLET "${CMAKE_SYSTEM_PROCESSOR}-linux-gnu")
endif()

find_program(ACORN_FLATC flatc)
find_path(ACORN_FLATBUFFERS_INCLUDE flatbuffers/flatbuffers.h NO_CMAKE_FIND_ROOT_PATH PATHS /usr/include /usr/local/include)
if(NOT ACORN_FLATC OR NOT ACORN_FLATBUFFERS_INCLUDE)
  message(FATAL_ERROR "FlatBuffers (headers and flatc) is missing: bash toolchains/setup.sh installs it")
endif()
add_library(acorn_flatbuffers INTERFACE)
if(CMAKE_CROSSCOMPILING)
  # The headers are of no machine, but the folder that they lie in has the building machine's C library beside them.
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/host_include")
  file(CREATE_LINK "${ACORN_FLATBUFFERS_INCLUDE}/flatbuffers" "${PROJECT_BINARY_DIR}/host_include/flatbuffers" SYMBOLIC)
  target_include_directories(acorn_flatbuffers SYSTEM INTERFACE "${PROJECT_BINARY_DIR}/host_include")
elseif(NOT ACORN_FLATBUFFERS_INCLUDE STREQUAL "/usr/include")
  target_include_directories(acorn_flatbuffers SYSTEM INTERFACE "${ACORN_FLATBUFFERS_INCLUDE}")
endif()

# acorn_find_small_library(<name> <header>): static build of setup.sh, then the system's. Cross builds are static.
function(acorn_find_small_library name header)
  string(TOUPPER ${name} upper)
  set(built "${ACORN_DEPS_DIR}/static/${ACORN_DEBIAN_ARCH}")
  set(names lib${name}.a ${name})
  if(CMAKE_CROSSCOMPILING)
    set(names lib${name}.a)
  endif()
  find_library(ACORN_${upper}_LIBRARY NAMES ${names} NAMES_PER_DIR HINTS "${built}/lib")
  find_path(ACORN_${upper}_INCLUDE ${header} HINTS "${built}/include")
  if(NOT ACORN_${upper}_LIBRARY OR NOT ACORN_${upper}_INCLUDE)
    set(ACORN_HAVE_${upper} OFF PARENT_SCOPE)
    return()
  endif()
  set(ACORN_HAVE_${upper} ON PARENT_SCOPE)
  add_library(acorn_${name} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(acorn_${name} PROPERTIES IMPORTED_LOCATION "${ACORN_${upper}_LIBRARY}")
  if(NOT ACORN_${upper}_INCLUDE STREQUAL "/usr/include")
    target_include_directories(acorn_${name} SYSTEM INTERFACE "${ACORN_${upper}_INCLUDE}")
  endif()
  target_link_libraries(acorn_${name} INTERFACE Threads::Threads)
endfunction()
if(ACORN_HOSTED)
  find_package(Threads REQUIRED)
  acorn_find_small_library(pthreadpool pthreadpool.h)
  acorn_find_small_library(cpuinfo cpuinfo.h)
  acorn_find_small_library(uring liburing.h)
  acorn_find_small_library(sodium sodium.h)
endif()

if(ACORN_BUILD_COMPILER)
  find_package(Eigen3 3.4 REQUIRED NO_MODULE)
  find_package(nlohmann_json 3 REQUIRED)
  find_package(CLI11 REQUIRED)
  find_library(ACORN_UTF8PROC_LIBRARY NAMES libutf8proc.a utf8proc REQUIRED)
  find_path(ACORN_UTF8PROC_INCLUDE utf8proc.h REQUIRED)
  add_library(acorn_utf8proc UNKNOWN IMPORTED GLOBAL)
  set_target_properties(acorn_utf8proc PROPERTIES IMPORTED_LOCATION "${ACORN_UTF8PROC_LIBRARY}"
    INTERFACE_COMPILE_DEFINITIONS UTF8PROC_STATIC)
endif()
if(NOT ACORN_HOSTED)
  # GoogleTest needs an operating system; what is tested without one says so over its serial line.
elseif(ACORN_BUILD_TESTS AND CMAKE_CROSSCOMPILING)
  # Debian ships GoogleTest's sources beside its libraries, for cases like this.
  set(INSTALL_GTEST OFF)
  set(BUILD_GMOCK OFF)
  set(CMAKE_WARN_DEPRECATED OFF)  # Debian 12's asks for an older CMake than this one likes
  add_subdirectory(/usr/src/googletest "${PROJECT_BINARY_DIR}/googletest" EXCLUDE_FROM_ALL SYSTEM)
  unset(CMAKE_WARN_DEPRECATED)
elseif(ACORN_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(ACORN_BUILD_BENCH)
  find_package(benchmark REQUIRED)
endif()

# LibTorch, for recipes that train: -DACORN_WITH_TORCH=AUTO takes it where it is, ON insists, OFF leaves it out. Torch_DIR names
# another than the system's. Its headers are not warned about, and none of its own compile flags are taken.
if(ACORN_BUILD_COMPILER AND ACORN_WITH_TORCH)
  if(ACORN_WITH_TORCH STREQUAL "AUTO")
    find_package(Torch QUIET)
  else()
    find_package(Torch REQUIRED)
  endif()
  if(Torch_FOUND)
    add_library(acorn_torch INTERFACE)
    target_include_directories(acorn_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
    target_link_libraries(acorn_torch INTERFACE ${TORCH_LIBRARIES})
    if(Torch_VERSION VERSION_GREATER_EQUAL 2.10)
      target_compile_features(acorn_torch INTERFACE cxx_std_20)
    endif()
    # at::parallel_for is a plain loop to a compiler that does not know OpenMP.
    find_package(OpenMP REQUIRED COMPONENTS CXX)
    target_link_libraries(acorn_torch INTERFACE OpenMP::OpenMP_CXX)
    target_compile_definitions(acorn_torch INTERFACE EIGEN_DONT_PARALLELIZE)
  endif()
endif()
