//! Membership packets (SWIM, Das et al. 2002; Lifeguard, Dadgar et al. 2018). Filled by the membership room.
