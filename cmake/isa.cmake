# Instruction sets: the flags of the files that are compiled for one, and the kernel families' file lists.
# A file named <isa>.cc in a family's folder gets ACORN_ISA_FLAGS_<isa>; names and meanings as in runtime/platform/features.h.

set(ACORN_ISA_FLAGS_scalar "")
set(ACORN_ISA_FLAGS_avx2 -mavx2)
set(ACORN_ISA_FLAGS_avxvnni ${ACORN_ISA_FLAGS_avx2} -mavxvnni)
# GCC before 13 warns of its own _mm512_undefined_epi32 (GCC bug 105593).
set(ACORN_ISA_FLAGS_avx512vnni -mavx2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mavx512vnni
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
set(ACORN_ISA_FLAGS_avx512vnni_gfni ${ACORN_ISA_FLAGS_avx512vnni} -mgfni)
# Blocks fill all 32 registers: scheduling before they are allocated (which GCC does for Arm, not for x86) spills them. The pass
# after allocation stays.
set(ACORN_ISA_FLAGS_neon $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
set(ACORN_ISA_FLAGS_neondot -march=armv8.2-a+dotprod ${ACORN_ISA_FLAGS_neon})
set(ACORN_ISA_FLAGS_i8mm -march=armv8.2-a+dotprod+i8mm ${ACORN_ISA_FLAGS_neon})

set(ACORN_ISAS_x86_64 avx2 avxvnni avx512vnni avx512vnni_gfni)
set(ACORN_ISAS_aarch64 neon neondot i8mm)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(ACORN_ISAS scalar ${ACORN_ISAS_x86_64})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(ACORN_ISAS scalar ${ACORN_ISAS_aarch64})
else()
  set(ACORN_ISAS scalar)
endif()

# acorn_kernel_family(NAME ISA...): appends NAME/select.cc and NAME/<isa>.cc, of those ISAs that the target machine can have, to
# ACORN_KERNEL_SOURCES. Kernels are compiled with -O3 whatever the build type but Debug: they rely on full unrolling.
function(acorn_kernel_family name)
  set(sources ${name}/select.cc)
  foreach(isa IN LISTS ARGN)
    if(NOT isa IN_LIST ACORN_ISAS_x86_64 AND NOT isa IN_LIST ACORN_ISAS_aarch64 AND NOT isa STREQUAL "scalar")
      message(FATAL_ERROR "acorn_kernel_family(${name}): unknown instruction set ${isa}")
    endif()
    if(isa IN_LIST ACORN_ISAS)
      set(flags "${ACORN_ISA_FLAGS_${isa}};$<$<NOT:$<CONFIG:Debug>>:-O3>")
      # Where every access and operation is checked in line, Clang takes minutes over unrolled blocks: accesses are checked by calls
      # here, and operations by GCC's sanitizers alone.
      if(ACORN_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND NOT isa STREQUAL "scalar")
        list(APPEND flags -fno-sanitize=undefined -mllvm -asan-instrumentation-with-call-threshold=0)
      endif()
      set_source_files_properties(${name}/${isa}.cc PROPERTIES COMPILE_OPTIONS "${flags}")
      list(APPEND sources ${name}/${isa}.cc)
    endif()
  endforeach()
  set(ACORN_KERNEL_SOURCES ${ACORN_KERNEL_SOURCES} ${sources} PARENT_SCOPE)
endfunction()
