"""Training the tiny LVLMs of the phantom track, from nothing, on a CPU.

Two stages. First the vision tower with a linear head on every image token, which says what touches that
token's cell: the eleven findings and the two marks. Then the language model on cached image tokens: several
questions about one picture share its tokens in one sequence, each seeing the picture and itself. A *lesion*
model is taught to answer by the finding; its *twin* by a mark that has nothing to do with it.

    python -m medfocus_bench.phantom.training vision qwen --out build/phantom
    python -m medfocus_bench.phantom.training language qwen lesion --out build/phantom
"""
