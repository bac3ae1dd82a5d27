/* The model file, where the linker script puts .model; aligned as a segment of a file on storage would be. */
  .section .model, "a"
  .balign 16384
  .global acorn_model_begin, acorn_model_end
acorn_model_begin:
  .incbin ACORN_BAREMETAL_MODEL
acorn_model_end:
