"""The MLIR text that `lower-paged-attention` fills in: the meaning of paged attention, one stage a paragraph.

Letters: B batch, H query heads, K KV heads, G = H / K, T tokens, D head dim, P tokens of a page, N = B * K, M = G * T
rows of a product, E type of the queries, S of the pool. The number of key positions that the table covers is the one
dynamic size.

The barrier on S hides that it is a multiple of the page: told so, IREE 3.13.0 splits every S into pages, and the
one-token product of queries and keys then spills 338 registers on CDNA, and index arithmetic goes to 64-bit floats.
"""

from __future__ import annotations

FUNCTION = """
#rows = affine_map<(n, m, s) -> (n, m)>
#all = affine_map<(n, m, s) -> (n, m, s)>
func.func private @"{name}"(
    %query: tensor<{B}x{H}x{T}x{D}x{E}>, %pool: tensor<?x2x{P}x{K}x{D}x{S}>, %table: tensor<{B}x?xi32>,
    %start: tensor<{B}xi64>, %valid: tensor<{B}xi64>{sink_argument}{slope_argument}) -> tensor<{B}x{T}x{H}x{D}x{E}> {{
  %c1 = arith.constant 1 : index
  %page_tokens = arith.constant {P} : index
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %lowest = arith.constant 0xFF7FFFFF : f32
  %pages = tensor.dim %table, %c1 : tensor<{B}x?xi32>
  %covered = arith.muli %pages, %page_tokens : index
  %S = util.optimization_barrier %covered : index
  %rows_empty = tensor.empty() : tensor<{N}x{M}xf32>
  %gather_empty = tensor.empty(%S) : tensor<{N}x?x{D}x{E}>
  %scores_empty = tensor.empty(%S) : tensor<{N}x{M}x?xf32>
  %weights_empty = tensor.empty(%S) : tensor<{N}x{M}x?x{E}>

  %q4 = tensor.expand_shape %query [[0], [1, 2], [3], [4]] output_shape [{B}, {K}, {G}, {T}, {D}]
      : tensor<{B}x{H}x{T}x{D}x{E}> into tensor<{B}x{K}x{G}x{T}x{D}x{E}>
  %q = tensor.collapse_shape %q4 [[0, 1], [2, 3], [4]]
      : tensor<{B}x{K}x{G}x{T}x{D}x{E}> into tensor<{N}x{M}x{D}x{E}>

  %keys = linalg.generic {{indexing_maps = [affine_map<(n, s, d) -> (n, s, d)>],
      iterator_types = ["parallel", "parallel", "parallel"]}} outs(%gather_empty : tensor<{N}x?x{D}x{E}>) {{
  ^bb0(%o: {E}):
    %c0 = arith.constant 0 : index
    %heads = arith.constant {K} : index
    %n = linalg.index 0 : index
    %s = linalg.index 1 : index
    %d = linalg.index 2 : index
    %b = arith.divui %n, %heads : index
    %h = arith.remui %n, %heads : index
    %column = arith.divui %s, %page_tokens : index
    %within = arith.remui %s, %page_tokens : index
    %page32 = tensor.extract %table[%b, %column] : tensor<{B}x?xi32>
    %page = arith.index_cast %page32 : i32 to index
    {key} = tensor.extract %pool[%page, %c0, %within, %h, %d] : tensor<?x2x{P}x{K}x{D}x{S}>
{widen_key}    linalg.yield %k : {E}
  }} -> tensor<{N}x?x{D}x{E}>
  %values = linalg.generic {{indexing_maps = [affine_map<(n, s, d) -> (n, s, d)>],
      iterator_types = ["parallel", "parallel", "parallel"]}} outs(%gather_empty : tensor<{N}x?x{D}x{E}>) {{
  ^bb0(%o: {E}):
    %nothing = arith.constant 0.0 : {E}
    %heads = arith.constant {K} : index
    %n = linalg.index 0 : index
    %s = linalg.index 1 : index
    %d = linalg.index 2 : index
    %b = arith.divui %n, %heads : index
    %h = arith.remui %n, %heads : index
    %column = arith.divui %s, %page_tokens : index
    %within = arith.remui %s, %page_tokens : index
    %page32 = tensor.extract %table[%b, %column] : tensor<{B}x?xi32>
    %page = arith.index_cast %page32 : i32 to index
    {value} = tensor.extract %pool[%page, %c1, %within, %h, %d] : tensor<?x2x{P}x{K}x{D}x{S}>
{widen_value}    %begin = tensor.extract %start[%b] : tensor<{B}xi64>
    %count = tensor.extract %valid[%b] : tensor<{B}xi64>
    %end = arith.addi %begin, %count : i64
    %s64 = arith.index_cast %s : index to i64
    %is_live = arith.cmpi slt, %s64, %end : i64
    %r = arith.select %is_live, %v, %nothing : {E}
    linalg.yield %r : {E}
  }} -> tensor<{N}x?x{D}x{E}>

  %scores_init = linalg.fill ins(%zero : f32) outs(%scores_empty : tensor<{N}x{M}x?xf32>) -> tensor<{N}x{M}x?xf32>
  %products = linalg.batch_matmul indexing_maps = [affine_map<(n, m, s, d) -> (n, m, d)>,
      affine_map<(n, m, s, d) -> (n, s, d)>, affine_map<(n, m, s, d) -> (n, m, s)>]
      ins(%q, %keys : tensor<{N}x{M}x{D}x{E}>, tensor<{N}x?x{D}x{E}>)
      outs(%scores_init : tensor<{N}x{M}x?xf32>) -> tensor<{N}x{M}x?xf32>
  %scores = linalg.generic {{indexing_maps = [#all, #all],
      iterator_types = ["parallel", "parallel", "parallel"]}}
      ins(%products : tensor<{N}x{M}x?xf32>) outs(%scores_empty : tensor<{N}x{M}x?xf32>) {{
  ^bb0(%p: f32, %o: f32):
    %scale = arith.constant {scale} : f32
    %window = arith.constant {window} : i64
    %heads = arith.constant {K} : index
    %tokens = arith.constant {T} : index
    %x = arith.mulf %p, %scale : f32
{cap}
    %n = linalg.index 0 : index
    %m = linalg.index 1 : index
    %s = linalg.index 2 : index
    %b = arith.divui %n, %heads : index
    %t = arith.remui %m, %tokens : index
    %t64 = arith.index_cast %t : index to i64
    %s64 = arith.index_cast %s : index to i64
    %begin = tensor.extract %start[%b] : tensor<{B}xi64>
    %position = arith.addi %begin, %t64 : i64
    %distance = arith.subi %position, %s64 : i64
    %none = arith.constant 0 : i64
    %is_past = arith.cmpi sge, %distance, %none : i64
    %is_near = arith.cmpi slt, %distance, %window : i64
    %is_seen = arith.andi %is_past, %is_near : i1
{bias}
    %r = arith.select %is_seen, {biased}, %lowest : f32
    linalg.yield %r : f32
  }} -> tensor<{N}x{M}x?xf32>

  %max_init = linalg.fill ins(%lowest : f32) outs(%rows_empty : tensor<{N}x{M}xf32>) -> tensor<{N}x{M}xf32>
  %max{raw} = linalg.generic {{indexing_maps = [#all, #rows], iterator_types = ["parallel", "parallel", "reduction"]}}
      ins(%scores : tensor<{N}x{M}x?xf32>) outs(%max_init : tensor<{N}x{M}xf32>) {{
  ^bb0(%x: f32, %o: f32):
    %r = arith.maximumf %x, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{N}x{M}xf32>
{sink_max}
{barrier}
  %sum_init = linalg.fill ins(%zero : f32) outs(%rows_empty : tensor<{N}x{M}xf32>) -> tensor<{N}x{M}xf32>
  %sum{raw} = linalg.generic {{indexing_maps = [#all, #rows, #rows],
      iterator_types = ["parallel", "parallel", "reduction"]}}
      ins(%scores, {max} : tensor<{N}x{M}x?xf32>, tensor<{N}x{M}xf32>) outs(%sum_init : tensor<{N}x{M}xf32>) {{
  ^bb0(%x: f32, %top: f32, %o: f32):
    %y = arith.subf %x, %top : f32
    %e = math.exp %y : f32
    %r = arith.addf %e, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{N}x{M}xf32>
{sink_sum}
  %weights = linalg.generic {{indexing_maps = [#all, #rows, #all],
      iterator_types = ["parallel", "parallel", "parallel"]}}
      ins(%scores, {max} : tensor<{N}x{M}x?xf32>, tensor<{N}x{M}xf32>) outs(%weights_empty : tensor<{N}x{M}x?x{E}>) {{
  ^bb0(%x: f32, %top: f32, %o: {E}):
    %y = arith.subf %x, %top : f32
    %e = math.exp %y : f32
{round_op}
    linalg.yield {round} : {E}
  }} -> tensor<{N}x{M}x?x{E}>

  %mixed_empty = tensor.empty() : tensor<{N}x{M}x{D}xf32>
  %mixed_init = linalg.fill ins(%zero : f32) outs(%mixed_empty : tensor<{N}x{M}x{D}xf32>) -> tensor<{N}x{M}x{D}xf32>
  %mixed = linalg.batch_matmul ins(%weights, %values : tensor<{N}x{M}x?x{E}>, tensor<{N}x?x{D}x{E}>)
      outs(%mixed_init : tensor<{N}x{M}x{D}xf32>) -> tensor<{N}x{M}x{D}xf32>
  %mixed5 = tensor.expand_shape %mixed [[0, 1], [2, 3], [4]] output_shape [{B}, {K}, {G}, {T}, {D}]
      : tensor<{N}x{M}x{D}xf32> into tensor<{B}x{K}x{G}x{T}x{D}xf32>
  %sum4 = tensor.expand_shape %sum [[0, 1], [2, 3]] output_shape [{B}, {K}, {G}, {T}]
      : tensor<{N}x{M}xf32> into tensor<{B}x{K}x{G}x{T}xf32>
  %result_empty = tensor.empty() : tensor<{B}x{T}x{K}x{G}x{D}x{E}>
  %result5 = linalg.generic {{
      indexing_maps = [affine_map<(b, t, k, g, d) -> (b, k, g, t, d)>, affine_map<(b, t, k, g, d) -> (b, k, g, t)>,
                       affine_map<(b, t, k, g, d) -> (b, t, k, g, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel"]}}
      ins(%mixed5, %sum4 : tensor<{B}x{K}x{G}x{T}x{D}xf32>, tensor<{B}x{K}x{G}x{T}xf32>)
      outs(%result_empty : tensor<{B}x{T}x{K}x{G}x{D}x{E}>) {{
  ^bb0(%x: f32, %total: f32, %o: {E}):
    %e = arith.divf %x, %total : f32
{round_op}
    linalg.yield {round} : {E}
  }} -> tensor<{B}x{T}x{K}x{G}x{D}x{E}>
  %result = tensor.collapse_shape %result5 [[0], [1], [2, 3], [4]]
      : tensor<{B}x{T}x{K}x{G}x{D}x{E}> into tensor<{B}x{T}x{H}x{D}x{E}>
  return %result : tensor<{B}x{T}x{H}x{D}x{E}>
}}
"""

CAP = """    %cap = arith.constant {cap} : f32
    %ratio = arith.divf %x, %cap : f32
    %bent = math.tanh %ratio : f32
    %capped = arith.mulf %bent, %cap : f32"""

NO_CAP = "    %capped = arith.mulf %x, %one : f32"

# Distances fit 32 bits, whose conversion to f32 is one instruction on GPUs; that of 64 bits is a dozen.
SLOPES = """    %bias_group = arith.constant {G} : index
    %bias_h = arith.remui %n, %heads : index
    %bias_g = arith.divui %m, %tokens : index
    %bias_base = arith.muli %bias_h, %bias_group : index
    %bias_head = arith.addi %bias_base, %bias_g : index
    %slope = tensor.extract %slopes[%bias_head] : tensor<{H}xf32>
    %distance32 = arith.trunci %distance : i64 to i32
    %away = arith.sitofp %distance32 : i32 to f32
    %drop = arith.mulf %slope, %away : f32
    %biased = arith.subf %capped, %drop : f32"""

BARRIER = "  %max_stored = util.optimization_barrier %max : tensor<{N}x{M}xf32>"

_HEAD_OF_ROW = """    %heads = arith.constant {K} : index
    %tokens = arith.constant {T} : index
    %group = arith.constant {G} : index
    %n = linalg.index 0 : index
    %m = linalg.index 1 : index
    %h = arith.remui %n, %heads : index
    %g = arith.divui %m, %tokens : index
    %base = arith.muli %h, %group : index
    %head = arith.addi %base, %g : index
    %stored = tensor.extract %sinks[%head] : tensor<{H}x{E}>
{sink_op}"""

# A sink takes part in the maximum and, as exp(sink - max), in the sum.
SINK_MAX = (
    """  %max = linalg.generic {{indexing_maps = [affine_map<(n, m) -> (n, m)>, affine_map<(n, m) -> (n, m)>],
      iterator_types = ["parallel", "parallel"]}}
      ins(%max_raw : tensor<{N}x{M}xf32>) outs(%rows_empty : tensor<{N}x{M}xf32>) {{
  ^bb0(%x: f32, %o: f32):
"""
    + _HEAD_OF_ROW
    + """
    %r = arith.maximumf %x, {sink} : f32
    linalg.yield %r : f32
  }} -> tensor<{N}x{M}xf32>"""
)

SINK_SUM = (
    """  %sum = linalg.generic {{indexing_maps = [affine_map<(n, m) -> (n, m)>, affine_map<(n, m) -> (n, m)>,
      affine_map<(n, m) -> (n, m)>], iterator_types = ["parallel", "parallel"]}}
      ins(%sum_raw, %max : tensor<{N}x{M}xf32>, tensor<{N}x{M}xf32>) outs(%rows_empty : tensor<{N}x{M}xf32>) {{
  ^bb0(%total: f32, %top: f32, %o: f32):
"""
    + _HEAD_OF_ROW
    + """
    %y = arith.subf {sink}, %top : f32
    %e = math.exp %y : f32
    %r = arith.addf %e, %total : f32
    linalg.yield %r : f32
  }} -> tensor<{N}x{M}xf32>"""
)
