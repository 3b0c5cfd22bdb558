# Compiler flags shared by all targets. No -march=native, no -ffast-math; the scalar reference must not
# contract a*b+c by itself (-ffp-contract=off), kernels say fma where they mean it.
add_library(ash_flags INTERFACE)
target_compile_options(ash_flags INTERFACE
  -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla
  -fno-math-errno -fno-trapping-math -ffp-contract=off -fvisibility=hidden)
target_compile_definitions(ash_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
if(ASHLAR_WERROR)
  target_compile_options(ash_flags INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(ash_flags INTERFACE -O3 -g)
endif()
if(ASHLAR_SANITIZE)
  target_compile_options(ash_flags INTERFACE -fsanitize=${ASHLAR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(ash_flags INTERFACE -fsanitize=${ASHLAR_SANITIZE})
endif()
if(ASHLAR_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # gcc's variable tracking takes minutes on instrumented, unrolled kernels
  target_compile_options(ash_flags INTERFACE -fno-var-tracking-assignments)
endif()
if(ASHLAR_FUZZ)
  target_compile_options(ash_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
