// RUN: amdnfs-opt --passes='fuse-attention' --why %s | filecheck %s
// transformers' GPTJAttention as torch.onnx.export writes it; see make.py. The scores are divided and an additive mask
// is an input; heads, rotary positions and the projections are left as they were.
// CHECK-LABEL: func.func @main_graph
// CHECK-SAME:    %arg0: {{[^%]*}}[[BIAS:%[a-z0-9]+]]: !torch.vtensor<[1,1,4,4],f32>
// CHECK-NOT:     torch.aten.softmax
// CHECK-NOT:     torch.aten.div
// CHECK:         [[NO_MASK:%[^ ,]+]] = torch.constant.none
// CHECK:         [[NO_SLOPES:%[^ ,]+]] = torch.constant.none
// CHECK:         [[SCALE:%[^ ,]+]] = torch.constant.float 0.353553
// CHECK:         [[CAUSAL:%[^ ,]+]] = torch.constant.bool false
// CHECK:         [[MIXED:%[0-9]+]] = torch.operator "torch.amdnfs.attention"({{%[0-9]+}}, {{%[0-9]+}}, {{%[0-9]+}}, [[NO_MASK]], [[BIAS]], [[NO_SLOPES]], [[SCALE]], {{%[^ ,]+}}, [[CAUSAL]]) : (!torch.vtensor<[1,2,4,8],f32>, !torch.vtensor<[1,2,4,8],f32>, !torch.vtensor<[1,2,4,8],f32>, {{.*}} -> !torch.vtensor<[1,4,2,8],f32>
// CHECK:         torch.aten.permute [[MIXED]]
// CHECK-NOT:     torch.aten.softmax
// CHECK-NOT:   // refused

module {
  func.func @main_graph(%arg0: !torch.vtensor<[1,4,16],f32>, %arg1: !torch.vtensor<[1,1,4,4],f32>, %arg2: !torch.vtensor<[1,4],si64>) -> !torch.vtensor<[1,4,16],f32> attributes {torch.onnx_meta.ir_version = 10 : si64, torch.onnx_meta.opset_version = 18 : si64, torch.onnx_meta.producer_name = "pytorch", torch.onnx_meta.producer_version = "2.13.0+cpu"} {
    %int9223372036854775807 = torch.constant.int 9223372036854775807
    %int16 = torch.constant.int 16
    %int3 = torch.constant.int 3
    %false = torch.constant.bool false
    %int-1 = torch.constant.int -1
    %int0 = torch.constant.int 0
    %int8 = torch.constant.int 8
    %int2 = torch.constant.int 2
    %int4 = torch.constant.int 4
    %int1 = torch.constant.int 1
    %0 = torch.vtensor.literal(dense<"0x5CD6ABBDD85367BEDC2BFCBD18C391BDBE9417BEB087253DA8DC33BD28B1FD3D9C4A22BED29E4F3E505F04BD969F403E7E6944BE1CC30DBE04C5E33D90C3C9BD1E686DBE48066F3E4024B3BCFE602EBEE0E8123DA8B66B3E78EEA53DCC27993D3075DDBC84AA3DBE683C3BBE1AAF573E5CA595BD7CC5D6BD00D9DABDE6A4543E24E2D13D1055E23D50DAC4BCE272603E106DA33DE46DF4BD24DFC83D88ABCD3D48B7033DE00F24BD3CEB953D7014BF3C08EDA73DD0B395BD8A154C3EA0C786BC6C35793E402FDF3D226B47BE001C29BDA001913C0C1BB73DA68F443E0AEB1DBE08195A3E1E7C17BE3C0536BEF092683D1C4760BE406279BE50A133BE084DE83D00C291BD207F5DBE466B553EB25969BE40FA25BEAC5C80BDC88F18BDAEC2243E1C49F4BD1C4412BE4C234BBEE8A7DDBDB8560C3E20DD543C00443A3AB8847D3E5AF953BE5E0F6D3EB4DAE1BD80BE80BCF0D1743E28115EBD606D22BCC078723EBA00243E68E6723D6086793C5A3D413E9C42053E801A353D9E1F663E90809CBD103568BE1485723E309DB53D74C5203E26DD14BED83C3C3ECA4F2F3E30B5B13C281502BD3C4B703ECCF74A3E2C0CD5BDCAC51E3E00F05DB906907E3ECC1C0B3E904E803DDA21673E24AA5E3E9004853D668F523E7A6546BE90888ABDCC1D6FBEBC29F3BD26154DBE48E390BDC4D431BE4A3623BE2057A53D884A14BE6C7292BDF0129BBC30F557BEE21A013E8CE5A13D6EA64BBE6086D93C106B603E9CB5333EBAEC5EBEAEEE1A3E40FBF03D78B01D3DECF97E3EE6E7723E7067363D289415BDD84601BE8830C1BD50FA103D5034BE3C585276BDA8BE703EAA722ABEC0CF3DBE7CE26ABE3CBA04BE7AFC5B3E5271193E38BF17BEF421883D50EAF13CD8892DBDA8FB4E3D4A1130BEC4D1593E18E2BE3D8A410B3EC8B50CBD209DDDBC98636B3D28037A3EE87247BD78CB293EB4CE66BE3E937F3ED86DBBBD540DF0BD0093CBBAC06FC23D566C723E08A7093DE87F79BD7C31D1BDA6C4463E00005CBC30CE143D98627FBD92344B3EA24906BE6A6A673E46AE75BE40B6D2BDB4E4B0BDDC6AC1BD069A4B3E04FFDBBD54E1ECBD78ACCBBD0E0D573E84AC9DBDA075E43D7CA2EFBD20974C3C309967BD6080E0BCAC2EB83D9C1664BE4CCA23BE60AD8A3D2003703DFCC0463E84C1E9BD062D723E0E496FBE062B30BE00124E3E66052F3EB046B23D3CCF8A3D707BBA3C601EA1BD5C5B33BEF83B1D3ECA7631BE740332BEC0561A3CB04619BD281F063E605C723DB0DA40BE44FB56BEF6A277BED04E22BD8AF964BEEE022E3ECCF332BE00DB4DBEC8935CBDE00AD63C40EA24BDA0F4283D9A46223E7EBB61BEE8D8ECBD38C679BEF0E6DD3DE0DEE6BD289513BD4E1754BEC839693D487D5A3EECEA593E00A0D838B8195E3EA04B6C3C401C35BD188EDD3D58434FBD"> : tensor<16x16xf32>) : !torch.vtensor<[16,16],f32>
    %1 = torch.vtensor.literal(dense<"0x6E890C3E8C946EBE38A6FF3D38C91BBE5C1DB3BD66F865BEF03C45BDF053ECBCAC9334BEA024B93D26DA5DBEF00EA93DE6BB7DBE420A72BE182A6ABD1018493D203F01BD3E74633E1853563D6849683EBAD251BE40BAF2BD100E49BD708FE4BD60AE363C40AA013D2CA2FD3DF20E403E1C1DE73DB03B5D3D602736BCCA133EBE40641C3CF0A6423E96B347BED06F2F3E00D259BDCE4F2E3EBAB865BE14B64C3E907634BE00EDF3BA085836BE28D2A4BD20E5F5BDA8A90FBE52EA1BBE987E2A3D00446D3DFE5D7FBEE86813BE64E157BEF8E25A3D006BD4BA440A5DBE54DF4EBE88EC0CBE086D4ABDA85691BD00D4D139D0D62ABE503E64BEAC28AD3D6413DA3D00D11E3E08AA3F3DF2D4703E88DB7EBD76C626BEDC7CFEBD283C20BDB0C2DB3C302C15BE407A003DCCC8ABBD7ACB033E627B13BEFA7A603E80E0A13D5CAACA3D48CF753EC8802CBD547F2C3E80D2383C403452BC022D44BE80E1533BC06456BD34F9AE3D30D369BD38A417BD5A9377BE5230133ED03F26BE40FDA8BB58E600BD964745BEB88228BDB03EDFBD1867153D0042373E00946FBEB896E8BD16D0363EC48D18BE003EE6BA8036333B4215393E2492073ED0FBE8BCC04C66BD9ADD51BEECA1BBBD1C5FEABDD4DC80BDD0DD723DF088D2BCEC1058BEB8DEC03D08EC8E3D00BAB2BBC0A7023D9626533E30B153BE507C443E48AF923D58CE1DBE90DA1DBD9838C93D8CE4C43D78DD73BE5CECC83D80ACE33B70B44FBD3A6A66BECC04F63DA04F2C3C983E48BE80ABFF3C00D0613BD8B6B93DE07D023C1409313E50D2B13DD01B543E34A117BE803E93BBE059753CC0ADB0BC56640C3EC0368ABC40D1B43D0406253E7A2D06BE204C653EE0182EBDC4FCAABDFA412CBE94923EBE2CD1BABDE8C55E3EDCB1BB3D78C840BECCD1F9BD103D4F3D74670A3EA221613E003F76BDFA8341BED8B74E3E30991C3E0AD406BED4138FBD2CEE4EBEACBFD13D7458C23D22E2613E1676013EA27745BED445F23D60C6223E02E576BE38D7D0BD505A57BD44BF2FBE86C14FBEC6D821BED857073D9842973D980D4C3E6C29ACBD867C2A3E78CA4B3D5C43373E20B061BC569175BEBA7E723E2EB01F3E362B673E00F752BE3CA614BE200F93BC54A2E53DF2B0533EDE70523E30BF263D0C06F7BDBAAB05BEF89C5EBE4871BF3DA0BF193DA0BB17BE0693223E8A5248BE386CB93D4CB60A3ED62E333EC03E7D3E24F734BEE8AA95BD74358B3D4662543EE0F4373D8093213B9066BC3C4A5F7DBEF4ADD1BD3C2B80BDC40C733EF07B58BDAE0767BE26424B3ECC0BB8BD10F4B83D9CFFD8BD56FC17BE1C40F2BDA8A4ABBD22FB04BE24B6D33DAC2720BE001126BE98E7173EEC66F9BD601D94BC1C9ACFBD74F8213E5C292F3EE0EE573EC0F0E73B4097963D845BBDBDFCADF0BDF8CF963D40EF6B3D9084A03C"> : tensor<16x16xf32>) : !torch.vtensor<[16,16],f32>
    %2 = torch.vtensor.literal(dense<"0x9012AB3CAA52413E584238BDCEB32EBE1461A93D8CB5233EDCFA8ABD8649593E20CA3A3C1035A33DF8B734BE9A8356BE880E8EBD00F032BAC8AE0C3DCE3E79BE70B9FF3CC2E67F3EF853C73DE87525BDCAEA7F3E703C983C208F45BD3053863C10D766BE2C6C093E6499FDBDC4820ABE14DFBEBDCC0FF8BD847F523ED82117BEFA4049BE58D85F3E80E2353D324126BE18C7043EB8BBF1BDB0FEC33CF09E2ABEE84E543E18A70E3D48DD52BE6A83623E40E5803DF08F7F3E88132DBE7C8AAEBDE0F2A03C4456463EF8D6D93DF8C3313E58241F3EB8466B3EA2C16C3E2071B7BD6ED7093E0C492BBE5A97053E741E6A3E689AB53D0E077A3E00323E3CCAD2003EB445313EF0C26ABDE0FDADBDBA8941BE2C32B3BDAC60D13D204D5B3CD89A5F3D80767E3E5A7B46BE60AED0BCAA206DBE1026FABD601241BE20CFBCBD8EAA25BE64AF663EA0AEB3BDF4A2F93D38CEF9BDF4ABF53D5A5742BE8C101EBE462743BE9655013EE4F59DBD9404453E6E8E343E300AB53C10884FBEE4367B3E2E63713ED876163E4230523EFECE32BEC45177BE2054EB3C6203753E00F0513CEC5DFE3D48FA28BE20BFE03D686E1E3EF84B003E745C143ED40B42BE26E272BE281364BD1838093D0A750F3E8846673DC65711BE888C74BD5266423E587FF53D246A68BE48A7553E7A847C3EDCA70D3EF887173EF0C4CBBC00089EBAD26A75BE18DF37BD7C1CEF3D300E1ABE20352DBEE28D523E4A4F10BE8C9EBABDFCF8FD3D521776BE20235C3C1A35133E20B6033C24B6583EA8D19B3DC48282BD30427C3E4297483EDC13F9BDFE25663EBA8D7CBE429A513E56A50FBE5CE90F3EE0F769BEC0BE78BE80CCF23DB09FE6BC944C9EBDA6F809BEB8F976BD4E9027BEF8F721BEE6AA003EEC2454BE9060F73D10954DBE2441373EB2FC44BED67411BEB03C37BD68BB4FBDAC444DBE0084B33D68A65EBD5CADA13DB074B33DE0A3B7BD2053443D6A1E593ECA235CBE008E0B3EB61A4A3E22AA453E4EDC2B3EB87920BDB83E3EBE90242C3EC84393BDF0267BBE1817083D0487D13DE67139BE1877413D40C1B0BCEE14143E5A637F3E6A7420BE50810A3EBAA1633E96FF353EB25E593E8876DABD724C72BE545C7BBE62A65ABEA4CDFD3DE84A97BD0E8916BEF4C105BE78B657BD34519BBD8E81223E88E4923DE82E703EB01A83BDA016E9BC403E293C6078B83DAEC8543E906BC7BD3CE7EE3DDC5933BEA857AB3D74F101BE88E6623D48B564BD54D929BEB2F430BEEC7CB3BD48164D3EF447E13DC42414BE400C35BE18CB35BECCCFCCBDA0E85C3D960011BEEADA563E2C4F93BD4C446B3EC8D16ABD3CAC223EA06098BCF450C83DFC06483EA09E64BE0414643E22DD453E9420ABBDFC52BE3DE8F4953D5C0049BE2C52F63DE0ADDEBC60461E3E64C589BDB018F8BDC0C6433C0EE0533E"> : tensor<16x16xf32>) : !torch.vtensor<[16,16],f32>
    %3 = torch.vtensor.literal(dense<[[[0.000000e+00, 0.000000e+00, 1.000000e+00, 1.000000e+00], [0.841470957, 0.00999983306, 0.540302336, 0.999949991], [0.909297406, 0.0199986659, -0.416146845, 9.998000e-01], [1.411200e-01, 2.999550e-02, -0.989992499, 0.999550044], [-0.756802499, 0.0399893336, -0.653643608, 0.999200105], [-0.958924293, 0.0499791652, 0.2836622, 0.998750269], [-0.279415488, 0.0599640049, 0.960170269, 0.998200535], [0.656986594, 0.0699428469, 0.753902256, 9.975510e-01]]]> : tensor<1x8x4xf32>) : !torch.vtensor<[1,8,4],f32>
    %4 = torch.vtensor.literal(dense<"0xB05FCD3CC07D3C3C5AFE7B3E1825CDBDDCF062BE7039253DECDE413EE44EC9BDCCF436BE88C8023E90E63F3D68097ABDC07E8FBCB40723BE983A523E54DAFD3D8475BEBDB863483DECCDDABDF8F06BBEF00982BCB05B773D24A9A03D300522BDB85A5C3DD2C4613EB0A3A4BD4C5B8CBDAACA71BE02DE693E744AC63D107F22BE5E6356BEA0D4143C101DA4BCDE473ABE38C7AA3D40E2603E24217D3E9EA472BE6819693EECB37EBEBC652D3EB0592D3D149B13BED8FB83BD12AC573E246E7A3E8C30CF3DFE3E313E1435E0BD8A45703EC48B993D887CBA3DF8697CBE246071BEA0CD7BBE18A00A3E80D35F3C00002A3D00A2CF3DF4A712BE3476AFBD4E8D7EBE6807033DFC29D8BDB05A0DBD7E43153E0E39563E1A7F60BEF27176BE7454C63D7C907EBE60A694BD4032403D14D1013E70A8ADBDF4FDF53D70380DBEE63B75BE340CCDBDF61408BE188E5E3DBC82093E6A8F7B3E52D339BE06152D3EF4B7D8BD3033033D3EAE7ABEB8ABA4BD7A5A30BEDAB2303E30A8183D0A235C3E10F971BD181CADBD181BDF3D50C4083D30450E3ED6E5683EF0A9E13D6048633E6CBF1BBE12C6403E284D633D00326B3AA08790BCD2604A3ECC44313ED069D53DB81C513E20E6853DE8CC5EBE706841BDFA624BBE5CE02B3EC88C0B3D98D81C3EB006CABDFCC51BBEB25E0BBE40E344BDB62D0F3E10F6143D98BED53D6AC1753EC00ECD3C102839BD8056833B8EF57FBE5014D73CE0FB333EB8B2F93D4A322A3E2C4C51BEA06B613D001D113D901DAEBCC66E5D3EF0F1A1BC6A9D76BE54DCD5BDA4A1C43D324A273ED876EBBD60BB513C50436E3E602004BD1CAC7FBE189F57BE7EA54CBED8F6333E0C3526BE2CA647BE706495BCD085A2BDE4EA213E7E5E24BE56A63BBEA002683CF6F7283EC0A9F2BBB8DE0EBE02AB46BE2A416CBEDA4B393EEE2E193EA4DB9D3DBEA540BE0085C9BA742014BE201E4FBC58D540BD500DF0BC18B8BA3DB466C13D94586EBE180C1A3D74BC633E7C11BEBD68FC1C3EA0B371BE281C023EC89A5D3D60C6ADBCC87D54BE4C2E933DB0633A3D084AE2BD620B71BEC0D9E4BC9413DF3D9C381B3EFA28443EC492863DF0EAE5BCD2BF233E68C3643D8066083DF86A7F3E74FEABBD404B5CBD44C9113EBE8B43BEE492223EF8B0C83DC038CD3D50417BBD7C467D3E9CD5783E6E1B343EC6560ABE249B67BE5CB027BEACD70BBEEAC6263EB2B9153E245D143E9CEF1FBE48BB74BD64B53A3E98D23C3E50CC343E4086DD3D40324F3D5CE117BEA055DBBD18DC023E0059C23D345DCBBDC857AA3D38FB0FBE2093B03C7A0232BE1C8E14BEE8F054BE9A0161BE78D1753D688EDE3D32E93C3E907388BC60677FBC840AEC3DD8B9B33D68E547BE8851353D8003383CA005B13CB0D2473EA88E2CBE984DE23D0A1F1D3EE02FB9BC405BCABC2036AEBC"> : tensor<16x16xf32>) : !torch.vtensor<[16,16],f32>
    %5 = torch.vtensor.literal(dense<2.82842708> : tensor<f32>) : !torch.vtensor<[],f32>
    %none = torch.constant.none
    %6 = torch.aten.matmul %arg0, %0 : !torch.vtensor<[1,4,16],f32>, !torch.vtensor<[16,16],f32> -> !torch.vtensor<[1,4,16],f32>
    %7 = torch.aten.matmul %arg0, %1 : !torch.vtensor<[1,4,16],f32>, !torch.vtensor<[16,16],f32> -> !torch.vtensor<[1,4,16],f32>
    %8 = torch.aten.matmul %arg0, %2 : !torch.vtensor<[1,4,16],f32>, !torch.vtensor<[16,16],f32> -> !torch.vtensor<[1,4,16],f32>
    %9 = torch.prim.ListConstruct %int1, %int4, %int2, %int8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %10 = torch.aten.reshape %6, %9 : !torch.vtensor<[1,4,16],f32>, !torch.list<int> -> !torch.vtensor<[1,4,2,8],f32>
    %11 = torch.prim.ListConstruct %int1, %int4, %int2, %int8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %12 = torch.aten.reshape %7, %11 : !torch.vtensor<[1,4,16],f32>, !torch.list<int> -> !torch.vtensor<[1,4,2,8],f32>
    %13 = torch.prim.ListConstruct %int1, %int4, %int2, %int8 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %14 = torch.aten.reshape %8, %13 : !torch.vtensor<[1,4,16],f32>, !torch.list<int> -> !torch.vtensor<[1,4,2,8],f32>
    %15 = torch.aten.transpose.int %14, %int1, %int2 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,2,4,8],f32>
    %16 = torch.aten.unsqueeze %arg2, %int2 : !torch.vtensor<[1,4],si64>, !torch.int -> !torch.vtensor<[1,4,1],si64>
    %17 = torch.prim.ListConstruct %int1, %int1, %int4 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %18 = torch.aten.tile %16, %17 : !torch.vtensor<[1,4,1],si64>, !torch.list<int> -> !torch.vtensor<[1,4,4],si64>
    %19 = torch.aten.add.Scalar %18, %int8, %int1 : !torch.vtensor<[1,4,4],si64>, !torch.int, !torch.int -> !torch.vtensor<[1,4,4],si64>
    %20 = torch.aten.lt.Scalar %18, %int0 : !torch.vtensor<[1,4,4],si64>, !torch.int -> !torch.vtensor<[1,4,4],i1>
    %21 = torch.aten.where.self %20, %19, %18 : !torch.vtensor<[1,4,4],i1>, !torch.vtensor<[1,4,4],si64>, !torch.vtensor<[1,4,4],si64> -> !torch.vtensor<[1,4,4],si64>
    %22 = torch.aten.gather %3, %int1, %21, %false : !torch.vtensor<[1,8,4],f32>, !torch.int, !torch.vtensor<[1,4,4],si64>, !torch.bool -> !torch.vtensor<[1,4,4],f32>
    %23 = torch.aten.slice.Tensor %22, %int2, %int0, %int2, %int1 : !torch.vtensor<[1,4,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2],f32>
    %24 = torch.aten.slice.Tensor %22, %int2, %int2, %int4, %int1 : !torch.vtensor<[1,4,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2],f32>
    %25 = torch.aten.slice.Tensor %12, %int3, %int0, %int4, %int1 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %26 = torch.aten.slice.Tensor %12, %int3, %int4, %int9223372036854775807, %int1 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %27 = torch.aten.slice.Tensor %10, %int3, %int0, %int4, %int1 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %28 = torch.aten.slice.Tensor %10, %int3, %int4, %int9223372036854775807, %int1 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %29 = torch.aten.unsqueeze %23, %int2 : !torch.vtensor<[1,4,2],f32>, !torch.int -> !torch.vtensor<[1,4,1,2],f32>
    %30 = torch.aten.unsqueeze %29, %int4 : !torch.vtensor<[1,4,1,2],f32>, !torch.int -> !torch.vtensor<[1,4,1,2,1],f32>
    %31 = torch.prim.ListConstruct %int1, %int-1, %int1, %int-1, %int2 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %32 = torch.aten.broadcast_to %30, %31 : !torch.vtensor<[1,4,1,2,1],f32>, !torch.list<int> -> !torch.vtensor<[1,4,1,2,2],f32>
    %33 = torch.prim.ListConstruct %int1, %int4, %int1, %int4 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %34 = torch.aten.reshape %32, %33 : !torch.vtensor<[1,4,1,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,4,1,4],f32>
    %35 = torch.aten.unsqueeze %24, %int2 : !torch.vtensor<[1,4,2],f32>, !torch.int -> !torch.vtensor<[1,4,1,2],f32>
    %36 = torch.aten.unsqueeze %35, %int4 : !torch.vtensor<[1,4,1,2],f32>, !torch.int -> !torch.vtensor<[1,4,1,2,1],f32>
    %37 = torch.prim.ListConstruct %int1, %int-1, %int1, %int-1, %int2 : (!torch.int, !torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %38 = torch.aten.broadcast_to %36, %37 : !torch.vtensor<[1,4,1,2,1],f32>, !torch.list<int> -> !torch.vtensor<[1,4,1,2,2],f32>
    %39 = torch.prim.ListConstruct %int1, %int4, %int1, %int4 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %40 = torch.aten.reshape %38, %39 : !torch.vtensor<[1,4,1,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,4,1,4],f32>
    %41 = torch.aten.mul.Tensor %25, %40 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,1,4],f32> -> !torch.vtensor<[1,4,2,4],f32>
    %42 = torch.aten.slice.Tensor %25, %int3, %int0, %int9223372036854775807, %int2 : !torch.vtensor<[1,4,2,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,2],f32>
    %43 = torch.aten.slice.Tensor %25, %int3, %int1, %int9223372036854775807, %int2 : !torch.vtensor<[1,4,2,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,2],f32>
    %44 = torch.aten.neg %43 : !torch.vtensor<[1,4,2,2],f32> -> !torch.vtensor<[1,4,2,2],f32>
    %45 = torch.aten.unsqueeze %44, %int4 : !torch.vtensor<[1,4,2,2],f32>, !torch.int -> !torch.vtensor<[1,4,2,2,1],f32>
    %46 = torch.aten.unsqueeze %42, %int4 : !torch.vtensor<[1,4,2,2],f32>, !torch.int -> !torch.vtensor<[1,4,2,2,1],f32>
    %47 = torch.prim.ListConstruct %45, %46 : (!torch.vtensor<[1,4,2,2,1],f32>, !torch.vtensor<[1,4,2,2,1],f32>) -> !torch.list<vtensor>
    %48 = torch.aten.cat %47, %int-1 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,4,2,2,2],f32>
    %49 = torch.prim.ListConstruct %int1, %int4, %int2, %int4 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %50 = torch.aten.reshape %48, %49 : !torch.vtensor<[1,4,2,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,4,2,4],f32>
    %51 = torch.aten.mul.Tensor %50, %34 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,1,4],f32> -> !torch.vtensor<[1,4,2,4],f32>
    %52 = torch.aten.add.Tensor %41, %51, %int1 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,2,4],f32>, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %53 = torch.aten.mul.Tensor %27, %40 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,1,4],f32> -> !torch.vtensor<[1,4,2,4],f32>
    %54 = torch.aten.slice.Tensor %27, %int3, %int0, %int9223372036854775807, %int2 : !torch.vtensor<[1,4,2,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,2],f32>
    %55 = torch.aten.slice.Tensor %27, %int3, %int1, %int9223372036854775807, %int2 : !torch.vtensor<[1,4,2,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,2],f32>
    %56 = torch.aten.neg %55 : !torch.vtensor<[1,4,2,2],f32> -> !torch.vtensor<[1,4,2,2],f32>
    %57 = torch.aten.unsqueeze %56, %int4 : !torch.vtensor<[1,4,2,2],f32>, !torch.int -> !torch.vtensor<[1,4,2,2,1],f32>
    %58 = torch.aten.unsqueeze %54, %int4 : !torch.vtensor<[1,4,2,2],f32>, !torch.int -> !torch.vtensor<[1,4,2,2,1],f32>
    %59 = torch.prim.ListConstruct %57, %58 : (!torch.vtensor<[1,4,2,2,1],f32>, !torch.vtensor<[1,4,2,2,1],f32>) -> !torch.list<vtensor>
    %60 = torch.aten.cat %59, %int-1 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,4,2,2,2],f32>
    %61 = torch.prim.ListConstruct %int1, %int4, %int2, %int4 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %62 = torch.aten.reshape %60, %61 : !torch.vtensor<[1,4,2,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,4,2,4],f32>
    %63 = torch.aten.mul.Tensor %62, %34 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,1,4],f32> -> !torch.vtensor<[1,4,2,4],f32>
    %64 = torch.aten.add.Tensor %53, %63, %int1 : !torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,2,4],f32>, !torch.int -> !torch.vtensor<[1,4,2,4],f32>
    %65 = torch.prim.ListConstruct %52, %26 : (!torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,2,4],f32>) -> !torch.list<vtensor>
    %66 = torch.aten.cat %65, %int-1 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,4,2,8],f32>
    %67 = torch.prim.ListConstruct %64, %28 : (!torch.vtensor<[1,4,2,4],f32>, !torch.vtensor<[1,4,2,4],f32>) -> !torch.list<vtensor>
    %68 = torch.aten.cat %67, %int-1 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,4,2,8],f32>
    %69 = torch.aten.transpose.int %68, %int1, %int2 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,2,4,8],f32>
    %70 = torch.aten.transpose.int %66, %int1, %int2 : !torch.vtensor<[1,4,2,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,2,4,8],f32>
    %71 = torch.aten.transpose.int %70, %int2, %int3 : !torch.vtensor<[1,2,4,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,2,8,4],f32>
    %72 = torch.aten.matmul %69, %71 : !torch.vtensor<[1,2,4,8],f32>, !torch.vtensor<[1,2,8,4],f32> -> !torch.vtensor<[1,2,4,4],f32>
    %73 = torch.aten.div.Tensor %72, %5 : !torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[],f32> -> !torch.vtensor<[1,2,4,4],f32>
    %74 = torch.aten.add.Tensor %73, %arg1, %int1 : !torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[1,1,4,4],f32>, !torch.int -> !torch.vtensor<[1,2,4,4],f32>
    %75 = torch.aten.softmax.int %74, %int3, %none : !torch.vtensor<[1,2,4,4],f32>, !torch.int, !torch.none -> !torch.vtensor<[1,2,4,4],f32>
    %76 = torch.aten.matmul %75, %15 : !torch.vtensor<[1,2,4,4],f32>, !torch.vtensor<[1,2,4,8],f32> -> !torch.vtensor<[1,2,4,8],f32>
    %77 = torch.aten.transpose.int %76, %int1, %int2 : !torch.vtensor<[1,2,4,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,4,2,8],f32>
    %78 = torch.prim.ListConstruct %int1, %int4, %int16 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %79 = torch.aten.reshape %77, %78 : !torch.vtensor<[1,4,2,8],f32>, !torch.list<int> -> !torch.vtensor<[1,4,16],f32>
    %80 = torch.aten.matmul %79, %4 : !torch.vtensor<[1,4,16],f32>, !torch.vtensor<[16,16],f32> -> !torch.vtensor<[1,4,16],f32>
    return %80 : !torch.vtensor<[1,4,16],f32>
  }
}

