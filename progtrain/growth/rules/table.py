"""Which rule belongs to which torch function, by its name."""

from __future__ import annotations

from progtrain.growth.rules import arithmetic, attention, layers, parts, shapes
from progtrain.growth.trace import Rule

_ELEMENTWISE = (
    "relu gelu silu tanh sigmoid elu celu leaky_relu selu mish hardtanh hardswish relu6 softplus "
    "exp log log1p sqrt rsqrt abs neg __neg__ pow __pow__ square clamp clamp_min clamp_max erf "
    "hardsigmoid logsigmoid reciprocal sin cos sign round floor ceil threshold softsign tanhshrink "
    "nan_to_num logit sinc __rtruediv__ __rdiv__ __invert__ log2 expm1"
)
_SAME = (
    "dropout alpha_dropout feature_dropout feature_alpha_dropout dropout1d dropout2d dropout3d "
    "contiguous clone detach to float half double bfloat16 type type_as cuda cpu identity data "
    "requires_grad_ native_dropout real"
)
_ADD = "add sub __radd__ __rsub__ rsub __add__ __sub__ __iadd__ __isub__ lerp"
_MULTIPLY = (
    "mul div true_divide __mul__ __rmul__ __truediv__ __imul__ __itruediv__ __floordiv__ multiply "
    "divide floor_divide"
)
_COMPARE = (
    "where masked_fill maximum minimum eq ne lt le gt ge __eq__ __ne__ __lt__ __le__ __gt__ __ge__ "
    "addcmul addcdiv logical_and logical_or fmod remainder __mod__ __and__ __or__ atan2"
)
_POOL = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d interpolate "
    "max_pool2d_with_indices boolean_dispatch lp_pool2d upsample grid_sample fn"
)
_REDUCE = (
    "mean sum amax amin var std var_mean std_mean linalg_vector_norm norm linalg_norm logsumexp "
    "prod max min all any argmax"
)
_CREATED = "zeros ones empty rand randn new_zeros new_ones new_empty"
_LIKE = (
    "zeros_like ones_like empty_like full_like rand_like randn_like bernoulli bernoulli_ zero_ "
    "fill_"
)
_NOTHING = (
    "arange linspace tensor as_tensor meshgrid eye tril triu full new_full new_tensor outer item "
    "tolist __len__ dim numel stride is_floating_point is_complex size __bool__ __int__ __float__ "
    "is_contiguous device dtype ndim requires_grad grad is_nested is_cuda layout __format__ "
    "__repr__ from_numpy result_type finfo storage_offset __index__ is_sparse is_quantized nelement"
)


def _names(words: str) -> list[str]:
    """The functions, and their in-place forms."""
    return [name for word in words.split() for name in (word, f"{word}_")]


RULES: dict[str, Rule] = {
    "linear": layers.linear,
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], layers.convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d"], layers.convolution_transposed),
    "embedding": layers.embedding,
    "batch_norm": layers.batch_norm,
    "instance_norm": layers.batch_norm,
    "layer_norm": layers.layer_norm,
    "rms_norm": layers.rms_norm,
    "group_norm": layers.group_norm,
    "local_response_norm": layers.local_response_norm,
    "prelu": layers.prelu,
    "scaled_dot_product_attention": attention.scaled_dot_product_attention,
    "multi_head_attention_forward": attention.multi_head_attention_forward,
    **dict.fromkeys(["matmul", "bmm", "mm", "__matmul__", "__rmatmul__"], arithmetic.matmul),
    "einsum": arithmetic.einsum,
    "normalize": arithmetic.normalise,
    **dict.fromkeys(
        ["softmax", "log_softmax", "cumsum", "glu", "softmin", "sort", "topk", "gumbel_softmax"],
        arithmetic.along,
    ),
    **dict.fromkeys(_names("view reshape"), shapes.reshape),
    **dict.fromkeys(["reshape_as", "view_as"], shapes.reshape_as),
    "flatten": shapes.flatten,
    "unflatten": shapes.unflatten,
    "permute": shapes.permute,
    **dict.fromkeys(["transpose", "swapaxes", "swapdims", "transpose_"], shapes.transpose),
    **dict.fromkeys(["T", "mT", "H", "mH", "t"], shapes.reverse),
    **dict.fromkeys(["movedim", "moveaxis"], shapes.movedim),
    **dict.fromkeys(_names("squeeze"), shapes.squeeze),
    **dict.fromkeys(_names("unsqueeze"), shapes.unsqueeze),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to"], shapes.expand),
    **dict.fromkeys(["repeat", "tile"], shapes.repeat),
    "repeat_interleave": shapes.repeat_interleave,
    **dict.fromkeys(["cat", "concat", "concatenate"], parts.cat),
    "stack": parts.stack,
    **dict.fromkeys(["chunk", "split", "tensor_split", "split_with_sizes"], parts.split),
    "unbind": parts.unbind,
    "__iter__": parts.unbind,
    "select": parts.select,
    **dict.fromkeys(["narrow", "index_select", "gather"], parts.narrow),
    "__getitem__": parts.getitem,
    "__setitem__": shapes.written,
    "pad": shapes.pad,
    **dict.fromkeys(["unfold", "im2col"], shapes.windows),
    "pixel_shuffle": shapes.pixel_shuffle,
    "pixel_unshuffle": shapes.pixel_unshuffle,
    **dict.fromkeys(["roll", "flip", "rot90"], shapes.roll),
    **dict.fromkeys(_ELEMENTWISE.split(), arithmetic.elementwise),
    **dict.fromkeys([f"{name}_" for name in _ELEMENTWISE.split()], arithmetic.elementwise),
    **dict.fromkeys(_names(_SAME), shapes.same),
    **dict.fromkeys(_names(_ADD), arithmetic.add),
    **dict.fromkeys(_names(_MULTIPLY), arithmetic.multiply),
    **dict.fromkeys(_names(_COMPARE), arithmetic.compare),
    **dict.fromkeys(_POOL.split(), shapes.pool),
    **dict.fromkeys(_REDUCE.split(), arithmetic.reduce),
    **dict.fromkeys(_CREATED.split(), shapes.created),
    **dict.fromkeys(_LIKE.split(), shapes.same),
    **dict.fromkeys(_NOTHING.split(), arithmetic.nothing),
}


def rule(name: str) -> Rule:
    return RULES.get(name, shapes.unknown)
