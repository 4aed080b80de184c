# One line of flags for train.py a row; what a line leaves out is train.py's default, the paper's value.

ROW_boundary                    := --region none --contour boundary
ROW_hausdorff                   := --region none --contour hausdorff
ROW_gdl                         := --region gdl
ROW_gdl-boundary                := --region gdl --contour boundary
ROW_gdl-boundary-3d             := --region gdl --contour boundary --maps 3d
ROW_gdl-hausdorff               := --region gdl --contour hausdorff
ROW_unet-ce                     := --region unet-ce
ROW_unet-ce-boundary            := --region unet-ce --contour boundary
ROW_focal                       := --region focal
ROW_focal-boundary              := --region focal --contour boundary

ROW_gdl-boundary-constant-0.001 := --region gdl --contour boundary --alpha constant --alpha-start 0.001
ROW_gdl-boundary-constant-0.01  := --region gdl --contour boundary --alpha constant --alpha-start 0.01
ROW_gdl-boundary-constant-0.05  := --region gdl --contour boundary --alpha constant --alpha-start 0.05
ROW_gdl-boundary-constant-0.1   := --region gdl --contour boundary --alpha constant --alpha-start 0.1
ROW_gdl-boundary-constant-0.5   := --region gdl --contour boundary --alpha constant --alpha-start 0.5
ROW_gdl-boundary-constant-1     := --region gdl --contour boundary --alpha constant --alpha-start 1
ROW_gdl-boundary-constant-1.5   := --region gdl --contour boundary --alpha constant --alpha-start 1.5
ROW_gdl-boundary-constant-2     := --region gdl --contour boundary --alpha constant --alpha-start 2
ROW_gdl-boundary-increase       := --region gdl --contour boundary --alpha increase

# Further values of alpha for a sweep: ALPHAS="0.2 0.3" on make's command line.
$(foreach alpha,$(ALPHAS),$(eval ROW_gdl-boundary-constant-$(alpha) := --region gdl --contour boundary --alpha constant --alpha-start $(alpha)))

ROW_midl-gdl-boundary           := --region gdl --contour boundary --alpha midl

# The rows of each table, in the order of the papers.
TABLE_table1 := boundary hausdorff gdl gdl-boundary gdl-boundary-3d gdl-hausdorff unet-ce unet-ce-boundary focal focal-boundary
TABLE_table3 := gdl $(foreach alpha,0.001 0.01 0.05 0.1 0.5 1 1.5 2,gdl-boundary-constant-$(alpha)) \
                gdl-boundary-increase gdl-boundary
TABLE_midl   := boundary gdl midl-gdl-boundary
# MIDL's figures are means over slices.
FLAGS_midl              := --level slice
FLAGS_midl-gdl-boundary := --level slice

# Data sets; those named *-demo are generated, small, and train in minutes on two cores.
DATASETS := isles wmh isles-demo wmh-demo
SLICE_isles-demo := --size 96 --val 4
SLICE_wmh-demo   := --size 96 --val 3
# The paper raises alpha to 0.99 in 100 epochs, the demos to 0.91 in 16; smaller batches give as many steps from fewer slices.
TRAIN_isles-demo := --width 16 --batch-size 4 --epochs 16 --alpha-step 0.06
TRAIN_wmh-demo   := --width 16 --batch-size 4 --epochs 16 --alpha-step 0.06
