-- Stores what each import changed, so that it can be undone. Rows are deleted after 90 days.
--
-- `is_new` is true if the import added the bean. The names of the bean are stored too, because someone may delete the
-- bean. Suppliers that the import added are in `upload_suppliers`.

CREATE TABLE IF NOT EXISTS upload_changes (
    upload_id CHAR(12) NOT NULL,
    bean_id INT NOT NULL,
    supplier_name VARCHAR(255) NOT NULL,
    type VARCHAR(255) NOT NULL,
    product_name VARCHAR(255) NOT NULL,
    is_new BOOLEAN NOT NULL,
    price_before VARCHAR(255),
    description_before VARCHAR(255),
    quantity_before INT,
    price_after VARCHAR(255),
    description_after VARCHAR(255),
    quantity_after INT,
    imported_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (upload_id, bean_id),
    KEY upload_changes_age (imported_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS upload_suppliers (
    upload_id CHAR(12) NOT NULL,
    supplier_id INT NOT NULL,
    imported_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (upload_id, supplier_id),
    KEY upload_suppliers_age (imported_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
