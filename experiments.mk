# One line of flags for train.py per row; what a line leaves out is train.py's default, the paper's value. Then the rows
# of each paper's tables, and one line of defaults per data set.

# Boundary loss (Kervadec et al. 2019, 2021) ---------------------------------------------------------------------------

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

# Region-wise loss (Valverde and Tohka 2022) ---------------------------------------------------------------------------

ROW_rrw                         := --region none --contour region-wise
ROW_rrw-ce                      := --region none --contour rrw-ce
ROW_dice                        := --region dice
ROW_dice-boundary               := --region dice --contour boundary --contour-classes all --alpha gradual
# Strategies of section 4.4: a region-wise loss alone, and beside Dice or cross-entropy with equal or gradual weights.
ROW_rw-boundary-alone           := --region none --contour region-wise --region-wise-map boundary
ROW_rw-boundary-dice-equal      := --region dice --contour region-wise --region-wise-map boundary --alpha equal
ROW_rw-boundary-dice-gradual    := --region dice --contour region-wise --region-wise-map boundary --alpha gradual
ROW_rw-boundary-ce-equal        := --region ce --contour region-wise --region-wise-map boundary --alpha equal
ROW_rw-boundary-ce-gradual      := --region ce --contour region-wise --region-wise-map boundary --alpha gradual
ROW_rrw-alone                   := --region none --contour region-wise
ROW_rrw-dice-equal              := --region dice --contour region-wise --alpha equal
ROW_rrw-dice-gradual            := --region dice --contour region-wise --alpha gradual
ROW_rrw-ce-equal                := --region ce --contour region-wise --alpha equal
ROW_rrw-ce-gradual              := --region ce --contour region-wise --alpha gradual

# Breast ultrasound (Odonnat and Pham) ---------------------------------------------------------------------------------

ROW_ce                          := --region ce
ROW_ce-boundary-combination     := --region ce --contour boundary --alpha equal
ROW_ce-boundary-scheduling      := --region ce --contour boundary --alpha busi-linear
ROW_ce-boundary-rebalance       := --region ce --contour boundary --alpha busi-rebalance

# The same losses with nnU-Net v2 as the engine: flags of scripts/train_nnunet.py ----------------------------------------

ROW_nnunet-rrw                  := --trainer nnUNetTrainerRRW
ROW_nnunet-rrw-authors          := --trainer nnUNetTrainerRRW_authors
ROW_nnunet-rrw-volume           := --trainer nnUNetTrainerRRWVolume
ROW_nnunet-rrw-ce               := --trainer nnUNetTrainerRRWCrossEntropy
ROW_nnunet-dice                 := --trainer nnUNetTrainerDice
ROW_nnunet-dice-authors         := --trainer nnUNetTrainerDice_authors
ROW_nnunet-focal                := --trainer nnUNetTrainerFocal
ROW_nnunet-focal-authors        := --trainer nnUNetTrainerFocal_authors
ROW_nnunet-dice-boundary        := --trainer nnUNetTrainerDiceBoundary
ROW_nnunet-dice-boundary-authors := --trainer nnUNetTrainerDiceBoundary_authors
ROW_nnunet-gdl-boundary         := --trainer nnUNetTrainerBoundary
# nnU-Net as it is.
ROW_nnunet-dice-ce              := --trainer nnUNetTrainer

# Tables: their rows in the order of the papers ------------------------------------------------------------------------

TABLE_isles_table1 := boundary hausdorff gdl gdl-boundary gdl-boundary-3d gdl-hausdorff unet-ce unet-ce-boundary focal focal-boundary
TABLE_isles_table3 := gdl $(foreach alpha,0.001 0.01 0.05 0.1 0.5 1 1.5 2,gdl-boundary-constant-$(alpha)) \
                      gdl-boundary-increase gdl-boundary
TABLE_isles_midl   := boundary gdl midl-gdl-boundary
TABLE_wmh_table1   := $(TABLE_isles_table1)
TABLE_wmh_table3   := $(TABLE_isles_table3)
TABLE_wmh_midl     := $(TABLE_isles_midl)
TABLE_acdc_table2  := rrw rrw-ce dice focal dice-boundary
# Section 4.4, with the data set's own epochs (Fig. 6a and b).
TABLE_acdc_strategies = $(STRATEGIES)
TABLE_brats_table3 := $(TABLE_acdc_table2)
TABLE_kits_table4  := $(TABLE_acdc_table2)
# The trainers have the paper's 300 epochs of ACDC; its other data sets had 100 (NNUNET_brats, NNUNET_kits).
TABLE_acdc_nnunet-table2  := $(addprefix nnunet-,$(TABLE_acdc_table2))
TABLE_brats_nnunet-table3 := $(TABLE_acdc_nnunet-table2)
TABLE_kits_nnunet-table4  := $(TABLE_acdc_nnunet-table2)
TABLE_busi_table1  := ce ce-boundary-combination ce-boundary-scheduling ce-boundary-rebalance
# The study's own DSC, pooled over batches of 16 images.
TABLE_busi_table1-pooled := $(TABLE_busi_table1)
# Any other data set has the tables of the boundary loss.
TABLE_own_table1   := $(TABLE_isles_table1)
TABLE_own_table3   := $(TABLE_isles_table3)
# MIDL's figures are means over slices.
FLAGS_midl              := --level slice
FLAGS_midl-gdl-boundary := --level slice
FLAGS_table1-pooled     := --level pooled

# The region-wise paper's analyses: rows of Figs. 5 and 6, and of Fig. 3 (which takes the first two of SEEDS).
STRATEGIES := $(foreach map,rrw rw-boundary,$(foreach with,alone dice-equal dice-gradual ce-equal ce-gradual,$(map)-$(with)))
SIGNS      := rw-boundary-alone rrw-alone
# Fig. 5 and 6c are of runs of 50 epochs, which are kept beside those of the tables: in $(RESULTS)/convergence.
CONVERGENCE_acdc := --epochs 50

# The row that a table's other rows are tested against, where it is not gdl.
BASELINE_acdc  := rrw
BASELINE_brats := rrw
BASELINE_kits  := rrw
BASELINE_busi  := ce
BASELINE_nnunet-table2 := nnunet-rrw
BASELINE_nnunet-table3 := nnunet-rrw
BASELINE_nnunet-table4 := nnunet-rrw

# Data sets; those named *-demo are generated, small, and train in minutes on two cores. ---------------------------------

DATASETS := isles wmh acdc brats kits busi
# Those of the papers, for `make papers`.
PAPERS   := $(DATASETS)
# Whose signs of gradients and convergence a paper has.
ANALYSES := acdc
DEMOS    := $(DATASETS:%=%-demo)
DATASETS += $(DEMOS)

# Region-wise paper: nnU-Net's settings as far as another network can have them.
TRAIN_acdc  := --epochs 300 --lr 0.0001 --weight-decay 0.00003 --gradient-clip 12 --lr-rule poly
TRAIN_brats := --epochs 100 --lr 0.0001 --weight-decay 0.00003 --gradient-clip 12 --lr-rule poly
TRAIN_kits  := --epochs 100 --lr 0.0001 --weight-decay 0.00003 --gradient-clip 12 --lr-rule poly
TRAIN_busi  := --network resnet34-unet --epochs 20 --batch-size 16 --lr-rule constant

NNUNET_brats := --epochs 100
NNUNET_kits  := --epochs 100
$(foreach d,$(DEMOS),$(eval NNUNET_$(d) := --epochs 2 --iterations 5 --batch-size 2 --width 8))

SLICE_isles-demo := --size 96 --val 4
SLICE_wmh-demo   := --size 96 --val 3
SLICE_acdc-demo  := --size 64
SLICE_brats-demo := --size 64
SLICE_kits-demo  := --size 64
SLICE_busi-demo  := --size 64
# The paper raises alpha to 0.99 in 100 epochs, the demos to 0.91 in 16; smaller batches give as many steps from fewer slices.
TRAIN_isles-demo := --width 16 --batch-size 4 --epochs 16 --alpha-step 0.06
TRAIN_wmh-demo   := --width 16 --batch-size 4 --epochs 16 --alpha-step 0.06
TRAIN_acdc-demo  := --width 8 --batch-size 4 --epochs 16 --alpha-step 0.06 --lr-rule poly
TRAIN_brats-demo := $(TRAIN_acdc-demo)
TRAIN_kits-demo  := $(TRAIN_acdc-demo)

# After how many epochs <data set>-gradients keeps the weights, unless SNAPSHOTS says; of other data sets 1 2 4 8 16.
SNAPSHOTS_acdc  := 1 2 5 10 20 50 100 200 300
SNAPSHOTS_brats := 1 2 5 10 20 50 100
SNAPSHOTS_kits  := $(SNAPSHOTS_brats)
