# Toolchain: 64-bit Windows by mingw-w64 with the static libraries that scripts/deps_mingw.sh builds; programs run
# under wine. See docs/howto/cross-build.md.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(PKG_CONFIG_EXECUTABLE /usr/bin/pkg-config)
get_filename_component(ash_mingw_deps "${CMAKE_CURRENT_LIST_DIR}/../build/deps-mingw" ABSOLUTE)
set(ENV{PKG_CONFIG_LIBDIR} "${ash_mingw_deps}/lib/pkgconfig")
set(ENV{PKG_CONFIG_DONT_DEFINE_PREFIX} 1)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
# The Windows ABI aligns the stack to 16 bytes only, gcc (bug 54412) spills wider vectors with aligned moves all the
# same: let the assembler write unaligned ones, which cost nothing on aligned data.
set(CMAKE_C_FLAGS_INIT -Wa,-muse-unaligned-vector-move)
set(CMAKE_CROSSCOMPILING_EMULATOR wine)
