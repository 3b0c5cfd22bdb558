# Install rules: program, static library, public headers, pkg-config file, default texts, and what the
# program writes about itself: man pages and shell completions (made at install time by the built program).
if(TARGET ashlar_cli)
  install(TARGETS ashlar_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(CODE "
    execute_process(COMMAND \"${CMAKE_COMMAND}\" -DASHLAR=${CMAKE_BINARY_DIR}/ashlar -DOUT=${CMAKE_BINARY_DIR}/generated
      -P \"${PROJECT_SOURCE_DIR}/cmake/gen_docs.cmake\" RESULT_VARIABLE rc)
    if(NOT rc EQUAL 0)
      message(FATAL_ERROR \"making the man pages failed\")
    endif()")
  install(DIRECTORY ${CMAKE_BINARY_DIR}/generated/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${CMAKE_BINARY_DIR}/generated/ashlar.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ashlar)
  install(FILES ${CMAKE_BINARY_DIR}/generated/_ashlar DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
  install(FILES ${CMAKE_BINARY_DIR}/generated/ashlar.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
endif()
install(TARGETS ashlar ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET ashlar_net)
  install(TARGETS ashlar_net ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY include/ashlar DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY data/ DESTINATION ${CMAKE_INSTALL_DATADIR}/ashlar)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
configure_file(cmake/ashlar.pc.in ashlar.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/ashlar.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
