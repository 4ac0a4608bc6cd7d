// RUN: amdnfs-opt --passes='fuse-rotary' --why %s | filecheck %s

!x = !torch.vtensor<[1,2,4,4],f16>
!half = !torch.vtensor<[1,2,4,2],f16>
!rows = !torch.vtensor<[1,2,2,4],f16>
!pair = !torch.vtensor<[1,2,4,2,2],f16>
!table = !torch.vtensor<[1,1,4,4],f16>

// CHECK-LABEL: func.func @halves
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: {{.*}}, [[COS:%[a-z0-9]+]]: {{.*}}, [[SIN:%[a-z0-9]+]]: {{.*}})
// CHECK:         [[FLAG:%[a-z0-9_]+]] = torch.constant.bool false
// CHECK-NEXT:    [[Y:%[0-9]+]] = torch.operator "torch.amdnfs.rotary"([[X]], [[COS]], [[SIN]], [[FLAG]])
// CHECK-NEXT:    return [[Y]]
func.func @halves(%x: !x, %cos: !table, %sin: !table) -> !x {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %end = torch.constant.int 9223372036854775807
  %straight = torch.aten.mul.Tensor %x, %cos : !x, !table -> !x
  %first = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %second = torch.aten.slice.Tensor %x, %i3, %i2, %end, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %minus = torch.aten.neg %second : !half -> !half
  %parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !torch.list<vtensor>
  %turned = torch.aten.cat %parts, %i3 : !torch.list<vtensor>, !torch.int -> !x
  %across = torch.aten.mul.Tensor %turned, %sin : !x, !table -> !x
  %y = torch.aten.add.Tensor %straight, %across, %i1 : !x, !x, !torch.int -> !x
  return %y : !x
}

// Factors and summands in the other order, elements in pairs.
// CHECK-LABEL: func.func @interleaved
// CHECK-SAME:    ([[X:%[a-z0-9]+]]: {{.*}}, [[COS:%[a-z0-9]+]]: {{.*}}, [[SIN:%[a-z0-9]+]]: {{.*}})
// CHECK:         [[FLAG:%[a-z0-9_]+]] = torch.constant.bool true
// CHECK-NEXT:    torch.operator "torch.amdnfs.rotary"([[X]], [[COS]], [[SIN]], [[FLAG]])
func.func @interleaved(%x: !x, %cos: !table, %sin: !table) -> !x {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %last = torch.constant.int -1  %end = torch.constant.int 9223372036854775807
  %even = torch.aten.slice.Tensor %x, %last, %i0, %end, %i2 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %odd = torch.aten.slice.Tensor %x, %last, %i1, %end, %i2 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %minus = torch.aten.neg %odd : !half -> !half
  %parts = torch.prim.ListConstruct %minus, %even : (!half, !half) -> !torch.list<vtensor>
  %pairs = torch.aten.stack %parts, %last : !torch.list<vtensor>, !torch.int -> !pair
  %turned = torch.aten.flatten.using_ints %pairs, %i3, %last : !pair, !torch.int, !torch.int -> !x
  %across = torch.aten.mul.Tensor %sin, %turned : !table, !x -> !x
  %straight = torch.aten.mul.Tensor %cos, %x : !table, !x -> !x
  %y = torch.aten.add.Tensor %across, %straight, %i1 : !x, !x, !torch.int -> !x
  return %y : !x
}

// Each sum differs from @halves in one thing; nobody would call them rotary.
// CHECK-LABEL: func.func @near_misses_that_are_something_else
// CHECK-NOT:     torch.operator
// CHECK-COUNT-5: torch.aten.add.Tensor
func.func @near_misses_that_are_something_else(%x: !x, %other: !x, %cos: !table, %sin: !table) -> (!x, !x, !x, !x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2  %i3 = torch.constant.int 3
  %end = torch.constant.int 9223372036854775807
  %straight = torch.aten.mul.Tensor %x, %cos : !x, !table -> !x
  %first = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %second = torch.aten.slice.Tensor %x, %i3, %i2, %end, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %minus = torch.aten.neg %second : !half -> !half
  %good_parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !torch.list<vtensor>
  %good = torch.aten.cat %good_parts, %i3 : !torch.list<vtensor>, !torch.int -> !x
  %good_across = torch.aten.mul.Tensor %good, %sin : !x, !table -> !x
  %twice = torch.aten.add.Tensor %straight, %good_across, %i2 : !x, !x, !torch.int -> !x

  %plus_parts = torch.prim.ListConstruct %second, %first : (!half, !half) -> !torch.list<vtensor>
  %plus = torch.aten.cat %plus_parts, %i3 : !torch.list<vtensor>, !torch.int -> !x
  %plus_across = torch.aten.mul.Tensor %plus, %sin : !x, !table -> !x
  %not_negated = torch.aten.add.Tensor %straight, %plus_across, %i1 : !x, !x, !torch.int -> !x

  %theirs = torch.aten.slice.Tensor %other, %i3, %i0, %i2, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %mixed_parts = torch.prim.ListConstruct %minus, %theirs : (!half, !half) -> !torch.list<vtensor>
  %mixed = torch.aten.cat %mixed_parts, %i3 : !torch.list<vtensor>, !torch.int -> !x
  %mixed_across = torch.aten.mul.Tensor %mixed, %sin : !x, !table -> !x
  %two_sources = torch.aten.add.Tensor %straight, %mixed_across, %i1 : !x, !x, !torch.int -> !x

  %stride = torch.aten.slice.Tensor %x, %i3, %i0, %end, %i2 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %stride_parts = torch.prim.ListConstruct %minus, %stride : (!half, !half) -> !torch.list<vtensor>
  %strided = torch.aten.cat %stride_parts, %i3 : !torch.list<vtensor>, !torch.int -> !x
  %stride_across = torch.aten.mul.Tensor %strided, %sin : !x, !table -> !x
  %other_elements = torch.aten.add.Tensor %straight, %stride_across, %i1 : !x, !x, !torch.int -> !x

  %upper = torch.aten.slice.Tensor %x, %i2, %i0, %i2, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !rows
  %lower = torch.aten.slice.Tensor %x, %i2, %i2, %end, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !rows
  %minus_lower = torch.aten.neg %lower : !rows -> !rows
  %row_parts = torch.prim.ListConstruct %minus_lower, %upper : (!rows, !rows) -> !torch.list<vtensor>
  %rows = torch.aten.cat %row_parts, %i2 : !torch.list<vtensor>, !torch.int -> !x
  %rows_across = torch.aten.mul.Tensor %rows, %sin : !x, !table -> !x
  %other_axis = torch.aten.add.Tensor %straight, %rows_across, %i1 : !x, !x, !torch.int -> !x
  return %twice, %not_negated, %two_sources, %other_elements, %other_axis : !x, !x, !x, !x, !x
}

// -----

!x = !torch.vtensor<[1,4],f32>
!half = !torch.vtensor<[1,2],f32>
!row = !torch.vtensor<[4],f32>
!dynamic = !torch.vtensor<[?,4],f32>

// CHECK-LABEL: func.func @refused
// CHECK-NOT:     torch.operator
// CHECK-COUNT-3: torch.aten.add.Tensor
// CHECK:       // refused: fuse-rotary: the term without rotation does not multiply the rotated tensor
// CHECK-NEXT:  // refused: fuse-rotary: the last axis must be even, and both tables of one static type that fits
// CHECK-NEXT:  // refused: fuse-rotary: the last axis must be even, and both tables of one static type that fits
// CHECK-NOT:   // refused
func.func @refused(%x: !x, %other: !x, %cos: !x, %sin: !x, %row: !row, %rows: !dynamic) -> (!x, !x, !x) {
  %i0 = torch.constant.int 0  %i1 = torch.constant.int 1  %i2 = torch.constant.int 2
  %end = torch.constant.int 9223372036854775807
  %first = torch.aten.slice.Tensor %x, %i1, %i0, %i2, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %second = torch.aten.slice.Tensor %x, %i1, %i2, %end, %i1 : !x, !torch.int, !torch.int, !torch.int, !torch.int -> !half
  %minus = torch.aten.neg %second : !half -> !half
  %parts = torch.prim.ListConstruct %minus, %first : (!half, !half) -> !torch.list<vtensor>
  %turned = torch.aten.cat %parts, %i1 : !torch.list<vtensor>, !torch.int -> !x
  %across = torch.aten.mul.Tensor %turned, %sin : !x, !x -> !x
  %theirs = torch.aten.mul.Tensor %other, %cos : !x, !x -> !x
  %other_straight_term = torch.aten.add.Tensor %theirs, %across, %i1 : !x, !x, !torch.int -> !x

  %straight_row = torch.aten.mul.Tensor %x, %row : !x, !row -> !x
  %other_rank = torch.aten.add.Tensor %straight_row, %across, %i1 : !x, !x, !torch.int -> !x

  %straight_rows = torch.aten.mul.Tensor %x, %rows : !x, !dynamic -> !x
  %dynamic_table = torch.aten.add.Tensor %straight_rows, %across, %i1 : !x, !x, !torch.int -> !x
  return %other_straight_term, %other_rank, %dynamic_table : !x, !x, !x
}
