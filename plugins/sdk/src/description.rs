//! The export that every plugin has: what it says of itself. Called by the code that the macros write and by nothing else;
//! no part of the interface that plugins are written against.

pub use bindings::exports::weir::plugin::description::{About, Guest, Variable};

pub fn answer(about: crate::About) -> About {
    about.to_host()
}

pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package weir:sdk;
            world description-part {
                export weir:plugin/description@0.1.0;
            }
        ",
        generate_all,
        export_macro_name: "export_description",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::description::bindings",
    });
}
