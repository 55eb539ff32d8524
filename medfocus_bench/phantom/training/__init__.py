"""Training the tiny models of the phantom track, from nothing, on a CPU.

The LVLMs in two stages. First the vision tower with a linear head on every image token, which says what
touches that token's cell: the eleven findings and the two marks. Then the language model on cached image
tokens: several questions about one picture share its tokens in one sequence, each seeing the picture and
itself. A *lesion* model is taught to answer by the finding; its *twin* by a mark that has nothing to do with
it and lies at another place in every picture. Its stages go on from the lesion model's.

    python -m medfocus_bench.phantom.training vision qwen lesion --out build/phantom
    python -m medfocus_bench.phantom.training language qwen lesion --out build/phantom

The segmenter (SAM: a rough box in, the mask of the region in it out) and the detector (OWLv2: a phrase in,
the box of what it names out) take one stage each, a quarter of an hour on one core.

    python -m medfocus_bench.phantom.training segmenter --out build/phantom
    python -m medfocus_bench.phantom.training detector --out build/phantom
"""
